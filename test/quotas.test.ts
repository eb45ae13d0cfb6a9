import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { TrainerError } from '../lib/errors.ts'
import { readQuotas } from '../lib/settings/quotas-file.ts'
import { schemaFiles, schemaText } from '../scripts/schema.ts'
import { root } from './support/places.ts'
import { trainerRig } from './support/rig.ts'
import { sandbox } from './support/sandbox.ts'
import { test } from './support/test.ts'

const good = () => JSON.parse(readFileSync(join(root, 'quotas.json'), 'utf8'))

test('readQuotas() gives the three quotas of the seed, with defaults', () => {
  const { jobs, maxLoadPerCore, dir } = readQuotas(join(root, 'quotas.json'))

  assert.equal([jobs.core.maxDiskMb, jobs.dpi.maxDiskMb, jobs.agent.maxDiskMb], [3072, 3072, 200])
  assert.equal(jobs.core.models, ['*.onnx'])
  assert.equal([jobs.core.minFreeMb, jobs.core.sandbox, maxLoadPerCore], [64, 'auto', 0.8])
  assert.is(dir, root)
})

test('readQuotas() resolves modelsDir against the folder of the file', async () => {
  await using box = await sandbox({ 'quotas.json': JSON.stringify({ ...good(), modelsDir: 'models' }) })

  assert.is(readQuotas(box.path('quotas.json')).modelsDir, box.path('models'))
})

type Change = (quotas: ReturnType<typeof good>) => void
const faults: [what: string, change: Change, key: string, was: string, expected: string][] = [
  ['an unknown key', q => Object.assign(q, { job: 1 }), 'job', '', 'not a known key'],
  [
    'an unknown key of a job',
    q => Object.assign(q.jobs.dpi, { maxDisk: 1 }),
    'jobs.dpi.maxDisk',
    '',
    'not a known key',
  ],
  ['a fourth job', q => Object.assign(q.jobs, { cloud: {} }), 'jobs.cloud', '', 'not a known key'],
  ['a missing job', q => delete q.jobs.agent, 'jobs.agent', 'missing', 'an object'],
  ['no jobs', q => delete q.jobs, 'jobs', 'missing', 'an object'],
  ['a list of jobs', q => Object.assign(q, { jobs: [] }), 'jobs', '[]', 'an object'],
  [
    'a quota of 0',
    q => Object.assign(q.jobs.core, { maxDiskMb: 0 }),
    'jobs.core.maxDiskMb',
    '0',
    'at least 1',
  ],
  [
    'a negative quota',
    q => Object.assign(q.jobs.core, { maxDiskMb: -5 }),
    'jobs.core.maxDiskMb',
    '-5',
    'at least 1',
  ],
  [
    'a fractional quota',
    q => Object.assign(q.jobs.core, { maxDiskMb: 0.5 }),
    'jobs.core.maxDiskMb',
    '0.5',
    'whole',
  ],
  [
    'a quota as text',
    q => Object.assign(q.jobs.core, { maxDiskMb: '3GB' }),
    'jobs.core.maxDiskMb',
    '"3GB"',
    'whole',
  ],
  [
    'an empty command',
    q => Object.assign(q.jobs.dpi, { train: [] }),
    'jobs.dpi.train',
    '[]',
    'at least one string',
  ],
  ['an empty word', q => Object.assign(q.jobs.dpi, { train: [''] }), 'jobs.dpi.train.0', '""', 'not empty'],
  [
    'a placeholder with underscores',
    q => Object.assign(q.jobs.dpi, { train: ['t', '--out={output_dir}'] }),
    'jobs.dpi.train.1',
    '"--out={output_dir}"',
    'no {output_dir}; did you mean {outputDir}?',
  ],
  [
    'a placeholder in small letters, beside a right one',
    q => Object.assign(q.jobs.dpi, { train: ['t', '{outputDir} {modeldir}'] }),
    'jobs.dpi.train.1',
    '"{outputDir} {modeldir}"',
    'no {modeldir}; did you mean {modelDir}?',
  ],
  [
    'a placeholder with letters the wrong way round',
    q => Object.assign(q.jobs.dpi, { train: ['t', '{outptuDir}'] }),
    'jobs.dpi.train.1',
    '"{outptuDir}"',
    'no {outptuDir}; did you mean {outputDir}?',
  ],
  [
    'a misspelt placeholder in env',
    q => Object.assign(q.jobs.core, { env: { TRITON_HOME: '{output-dir}/triton' } }),
    'jobs.core.env.TRITON_HOME',
    '"{output-dir}/triton"',
    'no {output-dir}; did you mean {outputDir}?',
  ],
  [
    "another word for a placeholder's",
    q => Object.assign(q.jobs.core, { env: { CACHE: '{out_dir}/cache' } }),
    'jobs.core.env.CACHE',
    '"{out_dir}/cache"',
    'no {out_dir}; did you mean {outputDir}?',
  ],
  [
    'a placeholder as a shell has it',
    q => Object.assign(q.jobs.core, { env: { CACHE: '$' + '{outputDir}/cache' } }),
    'jobs.core.env.CACHE',
    '"$' + '{outputDir}/cache"',
    'no $' + '{outputDir}; did you mean {outputDir}?',
  ],
  [
    'a misspelt placeholder of the command that accepts',
    q => Object.assign(q.jobs.core, { accept: { command: ['t', '{candidatedir}'] } }),
    'jobs.core.accept.command.1',
    '"{candidatedir}"',
    'no {candidatedir}; did you mean {candidateDir}?',
  ],
  [
    'bounds of a metric that bound nothing',
    q => Object.assign(q.jobs.core, { accept: { metrics: { recall: {} } } }),
    'jobs.core.accept.metrics.recall',
    '{}',
    'an object with min or maxDrop',
  ],
  [
    'a placeholder with dashes',
    q => Object.assign(q.jobs.dpi, { train: ['{Max-Disk-MB}'] }),
    'jobs.dpi.train.0',
    '"{Max-Disk-MB}"',
    'did you mean {maxDiskMb}?',
  ],
  [
    'a shell line',
    q => Object.assign(q.jobs.dpi, { train: 'python3 t.py' }),
    'jobs.dpi.train',
    '"python3 t.py"',
    'a list',
  ],
  [
    'a glob that climbs out',
    q => Object.assign(q.jobs.dpi, { models: ['../*'] }),
    'jobs.dpi.models.0',
    '"../*"',
    'without ".."',
  ],
  [
    'braces that climb out',
    q => Object.assign(q.jobs.dpi, { prune: ['{a,..}/*'] }),
    'jobs.dpi.prune.0',
    '"{a,..}/*"',
    'without ".."',
  ],
  [
    'an absolute glob',
    q => Object.assign(q.jobs.dpi, { prune: ['/etc/*'] }),
    'jobs.dpi.prune.0',
    '"/etc/*"',
    'relative',
  ],
  [
    'a models folder that climbs out',
    q => Object.assign(q, { modelsDir: 'a/../../b' }),
    'modelsDir',
    '"a/../../b"',
    'without ".."',
  ],
  [
    'an unknown sandbox',
    q => Object.assign(q.jobs.core, { sandbox: true }),
    'jobs.core.sandbox',
    'true',
    '"auto", "off" or "required"',
  ],
  ['a number in env', q => Object.assign(q.jobs.core, { env: { A: 1 } }), 'jobs.core.env.A', '1', 'a string'],
  [
    'a negative grace',
    q => Object.assign(q.jobs.core, { graceSeconds: -1 }),
    'jobs.core.graceSeconds',
    '-1',
    'at least 0',
  ],
  [
    'a grace that systemd would cut',
    q => Object.assign(q.jobs.core, { graceSeconds: 301 }),
    'jobs.core.graceSeconds',
    '301',
    'at most 300',
  ],
  [
    'a time-out of 0',
    q => Object.assign(q.jobs.core, { timeoutMinutes: 0 }),
    'jobs.core.timeoutMinutes',
    '0',
    'above 0',
  ],
]

for (const [what, change, key, was, expected] of faults) {
  test(`readQuotas() refuses ${what} and names the key, what it was and what was expected`, async () => {
    const quotas = good()
    change(quotas)
    await using box = await sandbox({ 'quotas.json': JSON.stringify(quotas) })

    const error = refusal(box.path('quotas.json'))

    assert.is(error.code, 'config')
    assert.ok(error.message.includes(`quotas.json: ${key} is ${was}`), error.message)
    assert.ok(error.message.includes(expected), error.message)
  })
}

test('readQuotas() leaves braces alone that are no placeholder of ours', async () => {
  const quotas = good()
  quotas.jobs.core.train = [
    't',
    'ckpt-{epoch}',
    '{outputDir}/{max_disk}',
    '$' + '{OUTPUT_DIR}',
    '{}',
    '{outputFile}',
  ]
  quotas.jobs.core.env = { NAME: 'run-{step}', OPTIONS: '{"model": 1}', SHELL_WORD: '$' + '{model_dir}' }
  await using box = await sandbox({ 'quotas.json': JSON.stringify(quotas) })

  const { train, env } = readQuotas(box.path('quotas.json')).jobs.core
  assert.equal([train, env], [quotas.jobs.core.train, quotas.jobs.core.env])
})

test('readQuotas() names every fault of a file, a line each', async () => {
  const quotas = good()
  quotas.jobs.core.maxDiskMb = 0
  quotas.jobs.dpi.train = []
  await using box = await sandbox({ 'quotas.json': JSON.stringify(quotas) })

  const lines = refusal(box.path('quotas.json')).message.split('\n')

  assert.is(lines.length, 2)
})

test('readQuotas() says in which line and column a file is not JSON', async () => {
  await using box = await sandbox()
  const faults = {
    '{\n "a": 1\n "b": 2 }': 'line 3, column 2: comma expected',
    '{\n "a": x }': 'line 2, column 7: invalid symbol',
    '{\n "a": "b\n}': 'line 2, column 7: unexpected end of string',
    '{\n': 'line 2, column 1: close brace expected',
  }

  for (const [content, fault] of Object.entries(faults)) {
    const file = box.path('quotas.json')
    writeFileSync(file, content)
    assert.is(refusal(file).message, `${file} is not JSON: ${fault}`)
  }
})

test('readQuotas() takes a file that begins with a byte order mark', async () => {
  await using box = await sandbox({ 'quotas.json': `\ufeff${JSON.stringify(good())}` })

  assert.is(readQuotas(box.path('quotas.json')).jobs.agent.maxDiskMb, good().jobs.agent.maxDiskMb)
})

test('readQuotas() refuses a file that is nested deeply, even too deeply to be described', async () => {
  await using box = await sandbox()
  const [open, close] = ['['.repeat(50_000), ']'.repeat(50_000)]
  let shown = 'nested too deeply'
  try {
    shown = `${JSON.stringify(JSON.parse(open + close)).slice(0, 57)}...`
  } catch {} // JSON.stringify() recurses in Node.js 20, and no more in 26
  const faults = {
    [open]: ' is not JSON: it is nested too deeply',
    [`{\n x ${open}`]: ' is not JSON: line 2, column 2: invalid symbol',
    [open + close]: `: the file is ${shown}, expected an object`,
    [`{"jobs":${open}${close}}`]: `: jobs is ${shown}, expected an object`,
  }

  for (const [content, fault] of Object.entries(faults)) {
    const file = box.path('quotas.json')
    writeFileSync(file, content)
    const { code, message } = refusal(file)
    assert.equal([code, message], ['config', file + fault])
  }
})

test('tasks.ts ends with 78 and one line for a quotas file that is missing, not JSON or wrong', async () => {
  await using rig = await trainerRig()
  const contents = [
    undefined,
    '{ "jobs": ',
    'null',
    JSON.stringify({ jobs: { core: { maxDiskMb: 0, train: ['true'] } } }),
  ]

  for (const content of contents) {
    const file = rig.path(content === undefined ? 'missing.json' : 'wrong.json')
    if (content !== undefined) writeFileSync(file, content)
    const { exitCode, stdout, stderr } = await rig.run(['--quotas', file])

    assert.is(exitCode, 78)
    assert.is(stdout, '')
    assert.match(stderr, /^ransomeye-trainer: .*(missing|wrong)\.json/)
    assert.not.match(stderr, /\n\s+at /)
    if (content === undefined)
      assert.match(stderr, /ENOENT.*; name one that this user can read: --quotas FILE\n$/)
  }
})

test('readQuotas() names a folder that it is given for a file', async () => {
  await using box = await sandbox()

  assert.is(
    refusal(box.dir).message,
    `Cannot read the quotas file: ${box.dir} is a folder; name one that this user can read: --quotas FILE`,
  )
})

for (const file of schemaFiles) {
  test(`${file} is current`, () => {
    const text = readFileSync(join(root, file), 'utf8')
    assert.is(text, schemaText(file), 'run: node --import tsx scripts/schema.ts')
  })
}

function refusal(file: string): TrainerError {
  try {
    readQuotas(file)
  } catch (error) {
    if (error instanceof TrainerError) return error
    throw error
  }
  throw new Error('was accepted')
}

test.run()
