import { execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { pathToFileURL } from 'node:url'
import * as assert from 'uvu/assert'
import { measure } from '../../lib/storage/measure.ts'
import { checkUsage } from '../../lib/storage.ts'
import { digFolders } from '../support/deep-folder.ts'
import { failure } from '../support/failure.ts'
import { loader, moduleOf, root } from '../support/places.ts'
import { sandbox, until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const isRoot = process.getuid?.() === 0
const GIB = 2 ** 30

test('measure() counts what du counts, where no file is sparse', async () => {
  await using box = await sandbox({
    'a.onnx': 70_000,
    'work/b.checkpoint': 5000,
    'work/runs/c/d': 1,
    'work/e': 0,
  })

  const { usedBytes } = await measure(box.dir)

  assert.is(usedBytes, duBytes(box.dir))
})

test('measure() counts an empty folder as its own blocks', async () => {
  await using box = await sandbox()

  const { usedBytes } = await measure(box.dir)

  assert.is(usedBytes, lstatSync(box.dir).blocks * 512)
})

test('measure() counts a sparse file at its size', async () => {
  await using box = await sandbox({ 'work/a.checkpoint': 0 })
  const before = await checkUsage(box.dir)
  truncateSync(box.path('work/a.checkpoint'), 4 * GIB)

  const usedBytes = await checkUsage(box.dir)

  assert.is(usedBytes - before, 4 * GIB)
  assert.ok(duBytes(box.dir) < GIB, 'the file is not sparse')
})

test('measure() counts a file with several hard links once', async () => {
  await using box = await sandbox({ 'a.onnx': 400_000, 'work/b': 1 })
  const before = await checkUsage(box.dir)
  for (const name of ['b.onnx', 'work/c.tmp', 'work/d']) linkSync(box.path('a.onnx'), box.path(name))

  const usedBytes = await checkUsage(box.dir)

  assert.is(usedBytes, before)
})

test('measure() does not follow links, and waits for no FIFO or socket', async () => {
  await using box = await sandbox({ 'outside/big': 5_000_000, 'core/a': 1 })
  symlinkSync('../outside/big', box.path('core/file.tmp'))
  symlinkSync('../outside', box.path('core/folder'))
  symlinkSync('..', box.path('core/up'))
  execFileSync('mkfifo', [box.path('core/fifo.tmp')])
  const server = createServer().listen(box.path('core/socket.tmp'))
  await until('the socket exists', () => readdirSync(box.path('core')).includes('socket.tmp'))

  const { usedBytes, prunable } = await measure(box.path('core'))

  server.close()
  assert.is(usedBytes, duBytes(box.path('core')))
  assert.equal(prunable, [])
})

test('measure() tells apart names that differ only in bytes that are not UTF-8', async () => {
  await using box = await sandbox()
  const bytes = [0xfe, 0xff].map(byte =>
    Buffer.from([...Buffer.from(`${box.dir}/a`), byte, ...Buffer.from('.tmp')]),
  )
  const names = [
    ...bytes,
    `${box.dir}/a\ufffd.tmp`,
    `${box.dir}/line\nbreak.tmp`,
    `${box.dir}/-rf.tmp`,
    `${box.dir}/.tmp`,
  ]
  for (const name of names) writeFileSync(name, 'x'.repeat(10_000))

  const { usedBytes, prunable } = await measure(box.dir)

  assert.is(usedBytes, duBytes(box.dir))
  assert.equal(
    sorted(prunable.map(({ path }) => path.toString('hex'))),
    sorted(names.map(name => Buffer.from(name as string).toString('hex'))),
  )
})

test('measure() counts what lies deeper than a path can name', async () => {
  await using box = await sandbox()
  const before = await checkUsage(box.dir)
  using _deep = digFolders(box.dir, { levels: 60, name: 'd'.repeat(200) }, innermost => {
    writeFileSync(`${innermost}/a.checkpoint`, '')
    truncateSync(`${innermost}/a.checkpoint`, GIB)
  })

  const { usedBytes, prunable } = await measure(box.dir)

  assert.ok(usedBytes - before >= GIB, `${usedBytes - before} bytes counted`)
  assert.equal(
    prunable.map(({ path }) => path.length),
    [box.dir.length + 60 * 201 + '/a.checkpoint'.length],
  )
})

/** In a process that may not take much memory. */
function measureInLittleMemory(dir: string): unknown {
  const script = `
import { measure } from ${JSON.stringify(pathToFileURL(moduleOf('lib/storage/measure.ts')).href)}
const { usedInodes, prunable } = await measure(${JSON.stringify(dir)})
console.log(JSON.stringify({ usedInodes, prunable: prunable.map(it => [it.name, it.ownInodes, it.inodes.length]) }))`
  const flags = ['--max-old-space-size=64', ...loader, '--input-type=module', '--eval', script]
  const { stdout, stderr } = spawnSync(process.execPath, flags, { encoding: 'utf8', cwd: root })
  return stderr ? stderr.slice(0, 500) : JSON.parse(stdout)
}

inSweep(
  'measure() takes little memory for prunable folders in one another, however long their names',
  async () => {
    const levels = 2000
    const name = `${'d'.repeat(255 - '.checkpoint'.length)}.checkpoint`
    await using box = await sandbox()
    using _deep = digFolders(box.dir, { levels, name }, innermost => writeFileSync(`${innermost}/a.tmp`, 'x'))

    const found = measureInLittleMemory(box.dir)

    // The box, the folders, the file; all of it goes with the outermost.
    assert.equal(found, { usedInodes: 1 + levels + 1, prunable: [[name, levels + 1, 0]] })
  },
)

inSweep(
  'measure() takes little memory for many names of a file below many prunable folders in one another',
  async () => {
    const levels = 1000
    const names = 10_000
    await using box = await sandbox({ file: 1 })
    using _deep = digFolders(box.dir, { levels, name: 'c.checkpoint' }, innermost => {
      for (let n = 0; n < names; n++) linkSync(box.path('file'), `${innermost}/${n}`)
    })

    const found = measureInLittleMemory(box.dir)

    assert.equal(found, { usedInodes: 1 + levels + 1, prunable: [['c.checkpoint', levels, names]] })
  },
)

test('measure() passes over what others delete meanwhile', async () => {
  await using box = await sandbox({ 'work/still.bin': 100_000 })
  const steady = await checkUsage(box.dir)
  const churn = spawn(process.execPath, ['-e', CHURN, box.path('work')], { stdio: 'ignore' })
  try {
    await until('the other process is at work', () => readdirSync(box.path('work')).length > 5)

    const looks: number[] = []
    for (const end = performance.now() + 1500; performance.now() < end || looks.length <= 20; )
      looks.push(await checkUsage(box.dir))

    const most = steady + 10 * (40 * 4096 + 2 * 4096)
    assert.ok(
      Math.min(...looks) >= steady && Math.max(...looks) <= most,
      `${Math.min(...looks)} to ${Math.max(...looks)}`,
    )
    assert.ok(new Set(looks).size > 1, 'nothing changed meanwhile')
  } finally {
    churn.kill('SIGKILL')
    await until('the other process is gone', () => churn.signalCode)
  }
})

test('measure() gives everything else its turn', async () => {
  await using box = await sandbox()
  mkdirSync(box.path('many'))
  for (let index = 0; index < 3000; index++) writeFileSync(box.path('many', `${index}`), '')
  let turns = 0
  const counter = setInterval(() => turns++, 1)

  for (let walk = 0; walk < 6; walk++) await checkUsage(box.dir)

  clearInterval(counter)
  assert.ok(turns >= 3, `${turns} turns`)
})

test('measure() can run twice at a time', async () => {
  await using box = await sandbox(
    Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`${index}/a.tmp`, index])),
  )

  const measured = await Promise.all([measure(box.dir), measure(box.dir), measure(box.dir)])

  const looks = measured.map(({ usedBytes, prunable }) => ({
    usedBytes,
    prunable: prunable.map(({ path, bytes, timeNs }) => `${path} ${bytes} ${timeNs}`),
  }))
  assert.equal(looks[1], looks[0])
  assert.equal(looks[2], looks[0])
  assert.is(looks[0]?.prunable.length, 300)
})

test('measure() never takes a missing folder, a file or a link for an empty folder', async () => {
  await using box = await sandbox({ file: 1, 'folder/a': 1 })
  symlinkSync('folder', box.path('link'))

  for (const [name, reason] of [
    ['missing', /ENOENT/],
    ['file', /not a folder/],
    ['link', /link/],
  ] as const) {
    const error = await failure(() => measure(box.path(name)))
    assert.is(error.code, 'storage')
    assert.match(error.message, reason)
    assert.ok(error.message.includes(box.path(name)), error.message)
  }
})

test('measure() names a folder that it cannot read', async () => {
  await using box = await sandbox({ 'a/b': 1, 'unlisted/c': 1, 'unsearched/d': 1 })
  chmodSync(box.dir, 0o755)

  for (const [name, mode] of [
    ['unlisted', 0o311],
    ['unsearched', 0o644],
  ] as const) {
    chmodSync(box.path(name), mode)
    const error = await failure(() => asNobody(() => measure(box.dir)))
    chmodSync(box.path(name), 0o755)
    assert.is(error.code, 'storage')
    assert.ok(error.message.includes(box.path(name)), error.message)
    assert.match(error.message, /EACCES/)
  }
})

skipUnless(
  test,
  isRoot,
  'needs root to mount',
)('measure() names a filesystem that is mounted inside', async () => {
  await using box = await sandbox({ 'work/deep/a': 1 })
  execFileSync('mount', ['-t', 'tmpfs', 'none', box.path('work/deep')])
  try {
    const error = await failure(() => measure(box.dir))

    assert.is(error.code, 'storage')
    assert.match(error.message, /another filesystem/)
    assert.ok(error.message.includes(box.path('work/deep')), error.message)
  } finally {
    execFileSync('umount', [box.path('work/deep')])
  }
})

/** Makes and deletes folders of 40 files, ten at a time. */
const CHURN = `
const { mkdirSync, rmSync, writeFileSync } = require('node:fs')
const folder = process.argv[1]
for (let round = 0; ; round++) {
  const name = folder + '/churn-' + (round % 10)
  rmSync(name, { recursive: true, force: true })
  mkdirSync(name)
  for (let index = 0; index < 40; index++) writeFileSync(name + '/' + index + '.tmp', 'x')
}`

function duBytes(dir: string): number {
  return Number(execFileSync('du', ['-s', '--block-size=1', dir], { encoding: 'utf8' }).split('\t')[0])
}

function sorted(names: string[]): string[] {
  return [...names].sort()
}

test.run()
