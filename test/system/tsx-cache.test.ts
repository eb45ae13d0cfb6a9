import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { root } from '../support/places.ts'
import { type Sandbox, sandbox } from '../support/sandbox.ts'
import { inSweep, test } from '../support/test.ts'

const asWritten = 'as written'
const planted = 'planted'
const cacheName = `tsx-${process.geteuid!()}`
/** tsx alone, as it would be started if this project did not stand before it. */
const bareTsx = join(root, 'lib/system/tsx/node_modules/tsx/dist/loader.mjs')

function start(box: Sandbox, command: string[], cwd = root): SpawnSyncReturns<string> {
  const { TSX_DISABLE_CACHE: _, ...env } = process.env
  const [program, ...args] = [...command, box.path('probe.ts')]
  return spawnSync(program!, args, { cwd, env: { ...env, TMPDIR: box.path('tmp') }, encoding: 'utf8' })
}

/** A script, and a temporary folder in which somebody has put another translation of it. */
async function plantedBox(): Promise<Sandbox> {
  const box = await sandbox({
    'probe.ts': `const said: string = '${asWritten}'\nconsole.log(said, JSON.stringify(process.env))\n`,
  })
  mkdirSync(box.path('tmp'))
  start(box, ['node', '--import', bareTsx])
  plantIn(box.path('tmp', cacheName))
  return box
}

function plantIn(cache: string): void {
  const names = readdirSync(cache)
  assert.ok(names.length, 'tsx keeps translations there')
  for (const name of names) {
    const text = readFileSync(join(cache, name), 'utf8')
    writeFileSync(join(cache, name), text.replaceAll(asWritten, planted))
  }
}

inSweep('tsx alone runs what somebody has put into its folder of the temporary folder', async () => {
  await using box = await plantedBox()

  assert.match(start(box, ['node', '--import', bareTsx]).stdout, planted)
})

for (const command of [
  ['node', '--import', 'tsx'],
  ['node_modules/.bin/tsx'], // what npx tsx runs
]) {
  const testHere = command[0] === 'node' ? test : inSweep
  testHere(
    `${command.join(' ')} runs nothing that is in the temporary folder, and changes no variable`,
    async () => {
      await using box = await plantedBox()

      const { stdout, stderr, status } = start(box, command)

      assert.equal([status, stderr], [0, ''])
      assert.match(stdout, new RegExp(`^${asWritten} `))
      assert.is(JSON.parse(stdout.slice(asWritten.length)).TMPDIR, box.path('tmp'))
    },
  )
}

/** A project of its own that is started by our tsx, whose cache somebody has changed. */
async function projectBox(): Promise<Sandbox> {
  const box = await plantedBox()
  cpSync(join(root, 'lib/system/tsx'), box.path('lib/system/tsx'), { recursive: true })
  mkdirSync(box.path('node_modules'))
  symlinkSync('../lib/system/tsx', box.path('node_modules/tsx'))
  for (const name of ['esbuild', '@esbuild', 'get-tsconfig', 'resolve-pkg-maps'])
    symlinkSync(join(root, 'node_modules', name), box.path('node_modules', name))
  startProject(box)
  plantIn(cacheOf(box))
  return box
}

const startProject = (box: Sandbox) => start(box, ['node', '--import', 'tsx'], box.dir)
const cacheOf = (box: Sandbox) => box.path('node_modules/.cache', cacheName)

inSweep('a cache beside the program is used only where nobody else can write', async () => {
  await using box = await projectBox()
  assert.match(startProject(box).stdout, planted)
  const isRoot = process.geteuid!() === 0
  const faults = [
    ...['.cache', `.cache/${cacheName}`].map(name => ({ name, mode: 0o777, owner: 0 })),
    ...(isRoot ? ['.', '.cache', `.cache/${cacheName}`] : []).map(name => ({
      name,
      mode: 0o700,
      owner: 65534,
    })),
  ]
  for (const { name, mode, owner } of faults) {
    const place = box.path('node_modules', name)
    chmodSync(place, mode)
    if (isRoot) chownSync(place, owner, owner)

    const { stdout } = startProject(box)

    assert.match(
      stdout,
      new RegExp(`^${asWritten} `),
      `${name} of mode ${mode.toString(8)}, of user ${owner}`,
    )
    chmodSync(place, 0o700)
    if (isRoot) chownSync(place, 0, 0)
  }
})

inSweep('a program that cannot write its cache starts without one', async () => {
  await using box = await projectBox()
  rmSync(box.path('node_modules/.cache'), { recursive: true })
  symlinkSync('/nonexistent', box.path('node_modules/.cache'))

  const { stdout, stderr } = startProject(box)

  assert.equal([stdout.startsWith(asWritten), stderr], [true, ''])
})

test.run()
