import * as assert from 'uvu/assert'
import type { Run } from '../../lib/run.ts'
import { explainRefusal } from '../../lib/training/refused-write.ts'
import { test } from '../support/test.ts'

const workDir = '/models/core/work'
const run = { quotas: { dir: '/etc/trainer' } } as unknown as Run
const explain = (error: string) => explainRefusal(error, { workDir, run })

/** The last lines of real programs, and the path that each is about. */
const refused: [program: string, line: string, path: string][] = [
  ['Python', `OSError: [Errno 30] Read-only file system: '/root/.triton'`, '/root/.triton'],
  [
    'Python, by a relative path',
    `OSError: [Errno 30] Read-only file system: 'mlruns'`,
    '/etc/trainer/mlruns',
  ],
  [
    'Python, into a folder of root',
    `PermissionError: [Errno 13] Permission denied: '/opt/data/x'`,
    '/opt/data/x',
  ],
  ['Node.js', `Error: EROFS: read-only file system, mkdir '/var/cache/x'`, '/var/cache/x'],
  [
    'Node.js, out of the output folder',
    `Error: EROFS: read-only file system, rename '/models/core/work/m' -> '/models/core/m'`,
    '/models/core/m',
  ],
  ['coreutils', `mkdir: cannot create directory ‘/srv/x’: Read-only file system`, '/srv/x'],
  ['coreutils, for C', `mkdir: cannot create directory '/srv/a b': Read-only file system`, '/srv/a b'],
  ['dash', `t.sh: 1: cannot create /srv/x: Read-only file system`, '/srv/x'],
  ['bash', `bash: line 1: /srv/x: Read-only file system`, '/srv/x'],
  ['Go', `panic: open /srv/x: read-only file system`, '/srv/x'],
  ['Java', `java.io.FileNotFoundException: /srv/x (Read-only file system)`, '/srv/x'],
  [
    'h5py',
    `OSError: [Errno 30] Unable to synchronously create file (unable to open file: name = '/srv/m.h5', errno = 30, error message = 'Read-only file system', flags = 13)`,
    '/srv/m.h5',
  ],
]

for (const [program, line, path] of refused) {
  test(`explainRefusal() names the path that ${program} could not write to`, () => {
    assert.match(explain(line) ?? '', `the sandbox refused a write to ${path}: `)
  })
}

test('explainRefusal() speaks of the sandbox where a filesystem is read-only and no path is named', () => {
  assert.match(
    explain('Error: Read-only file system (os error 30)') ?? '',
    /^the sandbox refused a write outside/,
  )
})

test('explainRefusal() says that TMPDIR is another filesystem', () => {
  const error = `OSError: [Errno 18] Invalid cross-device link: '/tmp/a' -> '${workDir}/a'`

  assert.match(explain(error) ?? '', /TMPDIR is another filesystem/)
})

const others = [
  `PermissionError: [Errno 13] Permission denied: '${workDir}/checkpoint-1/model.bin'`,
  `PermissionError: [Errno 13] Permission denied: '/tmp/x'`,
  `paramiko.AuthenticationException: Permission denied`,
  `git@example.org: Permission denied (publickey).`,
  `FileNotFoundError: [Errno 2] No such file or directory: '/srv/x'`,
  `ValueError: loss is nan`,
]
for (const error of others) {
  test(`explainRefusal() has nothing to say of "${error}"`, () => {
    assert.is(explain(error), undefined)
  })
}

test.run()
