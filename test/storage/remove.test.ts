import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import * as assert from 'uvu/assert'
import { measure } from '../../lib/storage/measure.ts'
import { pruneOldest } from '../../lib/storage/prune.ts'
import { Remover } from '../../lib/storage/remove.ts'
import { digFolders } from '../support/deep-folder.ts'
import { descriptorsBelow } from '../support/descriptors.ts'
import { isSweep, programOf } from '../support/places.ts'
import { type Sandbox, sandbox, until } from '../support/sandbox.ts'
import { inSweep, sampled, test } from '../support/test.ts'

test('Remover deletes exactly the file that was measured, whatever bytes its name has', async () => {
  await using box = await sandbox()
  const path = (middle: number[]) =>
    Buffer.from([...Buffer.from(`${box.dir}/a`), ...middle, ...Buffer.from('.tmp')])
  for (const middle of [[0xff], [0xfe], [0xef, 0xbf, 0xbd], [0x0a]]) writeFileSync(path(middle), 'x')
  const { prunable } = await measure(box.dir)

  const outcome = await removeAll(
    box.dir,
    prunable.filter(entry => entry.path.equals(path([0xff]))),
  )

  assert.equal(outcome, ['removed'])
  const left = readdirSync(box.dir, 'buffer').map(name => name.toString('hex'))
  const expected = [[0xfe], [0xef, 0xbf, 0xbd], [0x0a]].map(middle =>
    path(middle)
      .subarray(box.dir.length + 1)
      .toString('hex'),
  )
  assert.equal(left.sort(), expected.sort())
})

inSweep(
  'files far deeper than a path can name are measured and deleted with a turn for everything else in between',
  async () => {
    await using box = await sandbox({ 'kept/model.onnx': 5000 })
    const names = Array.from({ length: 40 }, (_, n) => `${n}.tmp`)
    const dig = { levels: 60, name: 'd'.repeat(255) }
    using _deep = digFolders(box.dir, dig, innermost => {
      for (const name of names) writeFileSync(`${innermost}/${name}`, Buffer.alloc(5000))
    })
    let longestMs = 0
    let lastMs = performance.now()
    const pulse = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - lastMs)
      lastMs = performance.now()
    }, 1)
    const paths: string[] = []

    const { prunable, ...used } = await measure(box.dir, { keep: [box.path('kept/model.onnx')] })
    const onPrune = ({ path }: { path: string }) => paths.push(path)
    const { freedInodes } = await pruneOldest(box.dir, prunable, { ...used, targetBytes: 0, onPrune })
    clearInterval(pulse)
    longestMs = Math.max(longestMs, performance.now() - lastMs)

    assert.is(freedInodes, names.length)
    assert.equal(paths.map(path => path.split('/').at(-1)).sort(), [...names].sort())
    assert.ok(
      paths.every(path => path.startsWith(`${box.dir}/ddd`) && path.length <= 4097),
      `${paths[0]!.length}`,
    )
    // To reach a folder four thousand levels down takes a tenth of a second.
    assert.ok(longestMs < 500, `${longestMs} ms`)
  },
)

test('Remover leaves alone what was written to or replaced since it was measured', async () => {
  await using box = await sandbox({
    'a.tmp': 1,
    'b.tmp': 1,
    'c.tmp': 1,
    'checkpoint-1/deep/d': 1,
    'checkpoint-2/e': 1,
  })
  const { prunable } = await measure(box.dir, { prune: ['checkpoint-*'] })
  writeFileSync(box.path('a.tmp'), 'written to')
  writeFileSync(box.path('new'), 'replaced')
  renameSync(box.path('new'), box.path('b.tmp'))
  writeFileSync(box.path('checkpoint-1/deep/d'), 'written to')
  rmSync(box.path('checkpoint-2'), { recursive: true })
  mkdirSync(box.path('checkpoint-2'))

  const outcomes = await removeAll(box.dir, byName(prunable))

  assert.equal(outcomes, ['changed', 'changed', 'removed', 'changed', 'changed'])
  assert.equal(readdirSync(box.dir).sort(), ['a.tmp', 'b.tmp', 'checkpoint-1', 'checkpoint-2'])
  assert.ok(existsSync(box.path('checkpoint-1/deep/d')))
})

test('Remover finds gone what was deleted or moved away since it was measured, and its folder', async () => {
  await using box = await sandbox({ 'a.tmp': 1, 'b/b.tmp': 1, 'c/c.tmp': 1, 'd/d.tmp': 1 })
  const { prunable } = await measure(box.dir)
  rmSync(box.path('a.tmp'))
  rmSync(box.path('b'), { recursive: true })
  rmSync(box.path('c'), { recursive: true })
  writeFileSync(box.path('c'), 'a file now')

  const outcomes = await removeAll(box.dir, byName(prunable))

  assert.equal(outcomes, ['gone', 'gone', 'gone', 'removed'])
})

test('Remover reaches what lies deeper than a path can name', async () => {
  await using box = await sandbox()
  using _deep = digFolders(box.dir, { levels: 60, name: 'd'.repeat(200) }, innermost => {
    mkdirSync(`${innermost}/checkpoint-1`)
    writeFileSync(`${innermost}/checkpoint-1/b`, 'x')
    writeFileSync(`${innermost}/a.checkpoint`, 'x')
  })
  const { prunable } = await measure(box.dir, { prune: ['**/checkpoint-1/'] })

  const outcomes = await removeAll(box.dir, prunable)

  assert.equal(outcomes, ['removed', 'removed'])
  assert.equal((await measure(box.dir, { prune: ['**/checkpoint-1'] })).prunable, [])
})

test('Remover does not run out of descriptors with many folders', async () => {
  const names = Array.from({ length: 600 }, (_, index) => `${index}/a.tmp`)
  await using box = await sandbox(Object.fromEntries(names.map(name => [name, 1])))
  const { prunable } = await measure(box.dir)
  const remover = new Remover(box.dir)

  for (const entry of prunable) assert.equal(await remover.remove([entry]), ['removed'])
  const held = descriptorsBelow(box.dir)
  await remover.close()

  assert.ok(held > 1 && held <= 16, `${held} descriptors`)
  assert.is(descriptorsBelow(box.dir), 0)
})

/*
 * In the next two a second process swaps the folder for a link to another that holds the very same files under the same
 * names (hard links), so that nothing but the way to them tells inside from outside.
 */

sampled('pruneOldest() deletes nothing outside while a folder is being swapped for a link', async () => {
  await using box = await sandbox()
  await using trap = await setTrap(box)
  let deleted = 0

  for (const end = performance.now() + (isSweep ? 3000 : 1000); performance.now() < end; ) {
    trap.bait()
    const { usedBytes, prunable } = await measure(box.path('core'))
    const { freedBytes } = await pruneOldest(box.path('core'), prunable, { usedBytes, targetBytes: 0 })
    if (freedBytes > 0) deleted++
    assert.is(trap.lost(), 0)
  }

  assert.ok(deleted > (isSweep ? 5 : 1), `something was deleted in ${deleted} rounds`)
})

inSweep(
  'control: deleting by path does delete outside while a folder is being swapped for a link',
  async () => {
    await using box = await sandbox()
    await using trap = await setTrap(box)

    await until('something outside is lost', async () => {
      trap.bait()
      const { prunable } = await measure(box.path('core'))
      for (const { path } of prunable) rmSync(path, { force: true })
      return trap.lost()
    })
  },
)

type Trap = AsyncDisposable & {
  /** Fill the folder, and the one outside. */
  bait: () => void
  /** How many files outside are gone. */
  lost: () => number
}

async function setTrap(box: Sandbox): Promise<Trap> {
  const names = Array.from({ length: 30 }, (_, index) => `${index}.tmp`)
  for (const folder of ['outside', 'core', 'core/work', 'core/work/run']) mkdirSync(box.path(folder))
  const fd = openSync(box.path('core/work/run'), constants.O_DIRECTORY)
  const swapper = spawn(
    process.execPath,
    [...programOf('test/support/swapper.ts'), box.path('core/work/run'), box.path('outside')],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  await once(swapper.stdout, 'data')
  return {
    bait() {
      rmSync(box.path('outside'), { recursive: true })
      mkdirSync(box.path('outside'))
      for (const name of names) {
        const real = `/proc/self/fd/${fd}/${name}`
        writeFileSync(real, 'x')
        utimesSync(real, 1000, 1000)
        linkSync(real, box.path('outside', name))
      }
    },
    lost: () => names.length - readdirSync(box.path('outside')).length,
    async [Symbol.asyncDispose]() {
      closeSync(fd)
      await end(swapper)
    },
  }
}

async function end(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL')
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

async function removeAll(
  dir: string,
  entries: Awaited<ReturnType<typeof measure>>['prunable'],
): Promise<unknown[]> {
  const remover = new Remover(dir)
  const outcomes = await remover.remove(entries)
  await remover.close()
  return outcomes
}

function byName<T extends { path: Buffer }>(entries: T[]): T[] {
  return [...entries].sort((a, b) => Buffer.compare(a.path, b.path))
}

test.run()
