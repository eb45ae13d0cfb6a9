import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { statSync, unlinkSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { MIB } from '../../lib/text.ts'
import { growthCutter } from '../../lib/training/cut-growth.ts'
import { sandbox } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { test } from '../support/test.ts'

const withPython = skipUnless(test, spawnSync('python3', ['--version']).status === 0, 'needs python3')

/** Opens each file, the first two by a mapping that it may write, and waits. */
const HOLD = `
import mmap, sys, time
held = [open(name, 'r+b') for name in sys.argv[1:]]
held += [mmap.mmap(it.fileno(), 0) for it in held[:2]]
print('holds', flush=True); time.sleep(60)`

withPython(
  'growthCutter() empties what is mapped for writing, or deleted, in work/ and nowhere else',
  async () => {
    await using box = await sandbox({
      'work/part (deleted)': MIB,
      'work/whole.checkpoint': MIB,
      'work/read': MIB,
      'work/gone': MIB,
      'generations/1/gone': MIB,
    })
    const names = [
      'work/part (deleted)',
      'work/whole.checkpoint',
      'work/read',
      'work/gone',
      'generations/1/gone',
    ]
    const holder = spawn('python3', ['-c', HOLD, ...names], {
      cwd: box.dir,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(holder.stdout, 'data')
      const [gone, published] = ['work/gone', 'generations/1/gone'].map(name => {
        const { ino } = statSync(box.path(name))
        unlinkSync(box.path(name))
        return () =>
          [3, 4, 5, 6, 7].map(fd => statSync(`/proc/${holder.pid}/fd/${fd}`)).find(it => it.ino === ino)?.size
      })
      const cut = await growthCutter({
        dir: box.dir,
        rules: {},
        isSandboxed: false,
        processes: () => [holder.pid!],
        sinceNs: BigInt(Date.now() + 60_000) * 10n ** 6n,
      })

      assert.is(await cut(new AbortController().signal), true)

      const sizeOf = (name: string) => statSync(box.path(name)).size
      assert.equal(names.slice(0, 3).map(sizeOf), [0, MIB, MIB])
      assert.equal([gone!(), published!()], [0, MIB])
      assert.is(await cut(new AbortController().signal), false)
    } finally {
      holder.kill('SIGKILL')
    }
  },
)

test.run()
