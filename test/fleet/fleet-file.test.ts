import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { type Fleet, readFleet } from '../../lib/fleet/fleet-file.ts'
import { failure } from '../support/failure.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'

const site = (modelsDir: string) => ({ modelsDir, quotas: 'quotas.json' })

async function read(content: unknown, names: string[] = []): Promise<Fleet> {
  await using box = await sandbox({ 'fleet.json': JSON.stringify(content) })
  return readFleet(box.path('fleet.json'), names)
}

test('readFleet() resolves paths from the folder of the file and fills in what it leaves out', async () => {
  await using box = await sandbox({
    'fleet.json': JSON.stringify({ sites: { paris: site('models/paris') } }),
  })

  const fleet = readFleet(box.path('fleet.json'))

  assert.equal(fleet.sites, [
    { name: 'paris', modelsDir: box.path('models/paris'), quotasFile: box.path('quotas.json') },
  ])
  assert.is(fleet.slurm.gres, 'trainer:1')
  assert.is(fleet.node, process.execPath)
})

test('readFleet() refuses two sites with one models folder, through links and where it is not there yet', async () => {
  await using box = await sandbox()
  mkdirSync(box.path('shared'))
  symlinkSync('shared', box.path('link'))
  const sites = { paris: site('shared/new'), rome: site('link/new') }
  writeFileSync(box.path('fleet.json'), JSON.stringify({ sites }))

  const error = await failure(async () => readFleet(box.path('fleet.json')))

  assert.is(error.exitCode, 78)
  assert.match(
    error.message,
    `sites.paris and sites.rome have one models folder, ${box.path('shared/new')}; give`,
  )
})

test("readFleet() refuses a site whose models folder is inside another's", async () => {
  await using box = await sandbox()
  const sites = { paris: site('shared/paris'), lyon: site('shared/paris-2'), rome: site('shared/paris/a/b') }
  writeFileSync(box.path('fleet.json'), JSON.stringify({ sites }))

  const error = await failure(async () => readFleet(box.path('fleet.json')))

  assert.is(error.exitCode, 78)
  assert.match(
    error.message,
    `the models folder of sites.rome, ${box.path('shared/paris/a/b')}, is inside that of sites.paris; give`,
  )
})

const faults: [content: unknown, message: string][] = [
  [{}, 'sites is missing, expected an object of sites'],
  [{ sites: {} }, 'expected at least one site'],
  [{ sites: { paris: {} } }, 'sites.paris.modelsDir is missing, expected a path'],
  [{ sites: { '-x': site('m') } }, 'expected a name on one line that begins with no dash'],
  [{ sites: { paris: site('m\n') } }, 'sites.paris.modelsDir is "m\\n", expected a path on one line'],
  [
    { slurm: { timeMinutes: 0.5 }, sites: { paris: site('m') } },
    'slurm.timeMinutes is 0.5, expected a whole',
  ],
  [{ slurm: { timeminutes: 5 }, sites: { paris: site('m') } }, 'slurm.timeminutes is not a known key'],
  [
    { slurm: { options: ['--arr=1-9'] }, sites: { paris: site('m') } },
    'expected an option other than --array',
  ],
  [{ slurm: { options: ['-a1-9'] }, sites: { paris: site('m') } }, 'expected an option other than --array'],
  [{ slurm: { options: ['hello.sh'] }, sites: { paris: site('m') } }, 'expected an option of sbatch'],
]

for (const [content, message] of faults) {
  test(`readFleet() refuses ${JSON.stringify(content)} and says where`, async () => {
    const error = await failure(() => read(content))

    assert.is(error.exitCode, 78)
    assert.match(error.message, message)
  })
}

test('readFleet() takes the named sites in the order of the file, and no unknown one', async () => {
  const sites = { paris: site('p'), rome: site('r'), oslo: site('o') }

  const fleet = await read({ sites }, ['oslo', 'paris'])
  const whole = await read({ sites }, ['oslo', 'rome', 'paris'])
  const error = await failure(() => read({ sites }, ['ome']))

  assert.equal(
    fleet.sites.map(({ name }) => name),
    ['paris', 'oslo'],
  )
  assert.equal([fleet.isWhole, whole.isWhole], [false, true])
  assert.is(error.exitCode, 64)
  assert.match(error.message, 'has no site "ome"; did you mean rome?')
})

test.run()
