import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { EventBody, TrainerEvent } from '../../lib/events.ts'
import { Journal } from '../../lib/run/journal.ts'
import { parseMetrics, renderMetrics } from '../../lib/run/metrics/exposition.ts'
import { Metrics } from '../../lib/run/metrics.ts'
import type { Run } from '../../lib/run.ts'
import { readQuotas } from '../../lib/settings/quotas-file.ts'
import { MIB } from '../../lib/text.ts'
import { waitForQuiet } from '../../lib/training/wait-for-quiet.ts'
import { onnxModel } from '../support/onnx-fixture.ts'
import { root } from '../support/places.ts'
import { readManifest, trainAndPublish } from '../support/publishing.ts'
import { publishes, type Rig, survivors, trainerRig, untilEvent } from '../support/rig.ts'
import { until } from '../support/sandbox.ts'
import { skipUnless } from '../support/skips.ts'
import { inSweep, test } from '../support/test.ts'

const hasPromtool = spawnSync('promtool', ['--version']).status === 0
const promtoolTest = skipUnless(inSweep, hasPromtool, 'needs promtool (Debian package prometheus)')
const canTrace = spawnSync('strace', ['-f', 'true']).status === 0
const traceTestInSweep = skipUnless(inSweep, canTrace, 'needs strace (Debian package strace)')

const alerts = join(root, 'docs', 'alerts.yml')
const fileOf = (rig: Rig) => join(rig.modelsDir, '.trainer', 'metrics.prom')
const figuresOf = (rig: Rig) => parseMetrics(readFileSync(fileOf(rig), 'utf8'))

/** The last event of its kind in the journal. */
function lastEvent<E extends TrainerEvent['event']>(rig: Rig, event: E): Extract<TrainerEvent, { event: E }> {
  const found = rig.events().findLast((it): it is Extract<TrainerEvent, { event: E }> => it.event === event)
  assert.ok(found, event)
  return found
}

/** An event as the journal writes it. */
function stamped(body: EventBody): TrainerEvent {
  return { time: new Date().toISOString(), level: 'info', run: 'r', ...body }
}

function openMetrics(rig: Rig): Metrics {
  mkdirSync(join(rig.modelsDir, '.trainer'), { recursive: true })
  return new Metrics(rig.modelsDir, readQuotas(rig.path('quotas.json')), true, assert.unreachable)
}

/** Do with metrics what a run does that has these events in it. */
async function feed(rig: Rig, ...bodies: EventBody[]): Promise<void> {
  const metrics = openMetrics(rig)
  const end = { event: 'run.done', exitCode: 0, seconds: 1, message: '' } as const
  for (const body of [...bodies, end]) metrics.take(stamped(body))
  await metrics.close()
}

test('a run leaves figures of itself, of every quota and of every model', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 7 } })

  await rig.run()

  const figures = figuresOf(rig)
  const { seconds, time } = lastEvent(rig, 'run.done')
  assert.is(figures.get('run_in_progress'), 0)
  assert.is(figures.get('last_exit_code'), 0)
  assert.is(figures.get('last_duration_seconds'), seconds)
  assert.is(figures.get('last_success_timestamp_seconds'), Date.parse(time) / 1000)
  assert.is(figures.get('run_start_timestamp_seconds'), Date.parse(lastEvent(rig, 'run.start').time) / 1000)
  const { usedBytes } = lastEvent(rig, 'job.done')
  assert.is(figures.get('usage_bytes{model="agent"}'), usedBytes)
  assert.is(figures.get('limit_bytes{model="core"}'), 7 * MIB)
  assert.ok(figures.get('free_bytes{model="core"}')! > 0)
  const model = statSync(join(rig.modelsDir, 'dpi', 'dpi.onnx'))
  assert.is(figures.get('model_bytes{model="dpi"}'), model.size)
  const { trained_at } = readManifest(join(rig.modelsDir, 'dpi')).metadata
  assert.is(
    figures.get('model_trained_timestamp_seconds{model="dpi"}'),
    Date.parse(String(trained_at)) / 1000,
  )
})

skipUnless(
  test,
  process.getuid?.() === 0,
  'needs root',
)('the limit of a job in a filesystem of its own is the size of that, while it is mounted', async () => {
  await using rig = await trainerRig({ core: { maxDiskMb: 7 } })
  const dir = join(rig.modelsDir, 'core')
  mkdirSync(dir, { recursive: true })
  const limitAfterRun = async () => {
    await feed(rig)
    return figuresOf(rig).get('limit_bytes{model="core"}')
  }

  spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=5m', 'tmpfs', dir])
  const mounted = await limitAfterRun()
  spawnSync('umount', [dir])
  const unmounted = await limitAfterRun()

  assert.equal([mounted, unmounted], [5 * MIB, 7 * MIB])
})

promtoolTest(
  'promtool finds nothing to mend in the figures of a run, nor in those of a first failed one',
  async () => {
    await using rig = await trainerRig({ core: { maxDiskMb: 2 } })
    await using failing = await trainerRig({ core: { trainer: 'process.exit(1)' } })

    await Promise.all([rig.run(), failing.run()])

    for (const it of [rig, failing]) {
      const input = readFileSync(fileOf(it))
      const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
        input,
        encoding: 'utf8',
      })
      assert.is(`${stdout}${stderr}`, '')
      assert.is(status, 0)
    }
  },
)

inSweep('a failed training leaves its exit code, and the time of the last success as it was', async () => {
  const trainer = `if (fs.existsSync(dir + '/../fail')) process.exit(3); ${publishes}`
  await using rig = await trainerRig({ core: { trainer } })
  await rig.run(['core'])
  const before = figuresOf(rig)
  writeFileSync(join(rig.modelsDir, 'core', 'fail'), '')

  await rig.run(['core', '--retrain'])

  const after = figuresOf(rig)
  assert.is(after.get('last_exit_code'), 1)
  assert.is(after.get('last_success_timestamp_seconds'), before.get('last_success_timestamp_seconds'))
  assert.ok(after.get('run_start_timestamp_seconds')! > before.get('run_start_timestamp_seconds')!)
})

inSweep('a run is in progress while it trains, also when it was killed, until the next run', async () => {
  await using rig = await trainerRig({
    core: { trainer: `if (!fs.existsSync(dir + '/../go')) await sleep(60_000); ${publishes}` },
  })
  const run = rig.start(['core'])
  await untilEvent(rig, 'train.start')
  const training = await until('figures of a run in progress', () =>
    existsSync(fileOf(rig)) ? figuresOf(rig) : undefined,
  )
  run.child.kill('SIGKILL')
  await run.ended
  const killed = figuresOf(rig)
  await until('the kernel has ended its training', () => !survivors(rig).length)
  writeFileSync(join(rig.modelsDir, 'core', 'go'), '')

  const { exitCode } = await rig.run(['core'])

  const started = lastEvent(rig, 'run.start')
  assert.is(training.get('run_in_progress'), 1)
  assert.is(training.get('last_exit_code'), undefined)
  assert.is(killed.get('run_in_progress'), 1)
  assert.ok(killed.get('run_start_timestamp_seconds')! < Date.parse(started.time) / 1000)
  assert.is(exitCode, 0)
  assert.is(figuresOf(rig).get('run_in_progress'), 0)
})

test('counters go on from run to run, and begin anew where the file is damaged', async () => {
  await using rig = await trainerRig()
  const job = 'core'
  const prune = {
    event: 'storage.prune',
    job,
    path: '',
    bytes: 5,
    mtime: '',
    rule: '',
    usedBytes: 1,
  } as const
  const freeze = { event: 'train.freeze', job, usedBytes: 1 } as const
  const runOnce = async () => {
    await feed(rig, prune, prune, freeze)
    const figures = figuresOf(rig)
    return [figures.get('pruned_bytes_total{model="core"}'), figures.get('freezes_total{model="core"}')]
  }

  const first = await runOnce()
  const second = await runOnce()
  writeFileSync(fileOf(rig), 'ransomeye_trainer_pruned_bytes_total{model="core"} many\n\0')
  const third = await runOnce()

  assert.equal(
    [first, second, third],
    [
      [10, 1],
      [20, 2],
      [10, 1],
    ],
  )
})

inSweep('pruning by hand says nothing of trainings, whether it goes well or not', async () => {
  await using rig = await trainerRig({ core: { trainer: 'process.exit(1)' } })
  await rig.run(['core'])
  const lastRun = () => [...figuresOf(rig)].filter(([name]) => /^(last|run)_/.test(name))
  const before = lastRun()
  const prune = () => rig.run(['core'], { script: 'scripts/prune.ts' })
  for (const name of ['1.tmp', '2.tmp'])
    writeFileSync(join(rig.modelsDir, 'core', name), Buffer.alloc(11 * MIB, 1))

  const pruned = await prune()
  const afterPruning = lastRun()
  const prunedBytes = figuresOf(rig).get('pruned_bytes_total{model="core"}')
  writeFileSync(join(rig.modelsDir, 'core', 'core.onnx'), Buffer.alloc(21 * MIB, 1))
  const violated = await prune()

  assert.is(pruned.exitCode, 0)
  assert.is(prunedBytes, 11 * MIB)
  assert.is(violated.exitCode, 2)
  assert.equal([afterPruning, lastRun()], [before, before])
  assert.ok(figuresOf(rig).get('usage_bytes{model="core"}')! > 21 * MIB)
})

inSweep(
  'a training that cannot even start leaves its exit code, and all other figures as they were',
  async () => {
    await using rig = await trainerRig()
    await rig.run(['core'])
    const before = figuresOf(rig)
    const quotas = readFileSync(rig.path('quotas.json'))
    writeFileSync(rig.path('quotas.json'), '{')
    const differences = () =>
      [...figuresOf(rig)].filter(([name, value]) => before.get(name) !== value).map(([name]) => name)

    await rig.run(['core'], { script: 'scripts/prune.ts' })
    const byPruning = differences()
    const wrong = await rig.run(['core'])
    const afterWrong = [figuresOf(rig).get('last_exit_code'), ...differences()]
    writeFileSync(rig.path('quotas.json'), quotas)
    rmSync(join(rig.modelsDir, '.trainer', 'lock'))
    mkdirSync(join(rig.modelsDir, '.trainer', 'lock'))
    const unusable = await rig.run(['core'])

    assert.equal([byPruning, wrong.exitCode, unusable.exitCode], [[], 78, 3])
    assert.equal(afterWrong, [78, 'last_exit_code', 'update_timestamp_seconds'])
    assert.is(figuresOf(rig).get('last_exit_code'), 3)
  },
)

inSweep(
  'what is no run leaves the figures alone: a dry run, a start while another holds the lock',
  async () => {
    await using rig = await trainerRig({ core: { trainer: `await sleep(60_000)` } })
    const run = rig.start(['core'])
    await untilEvent(rig, 'train.start')
    await until('figures', () => existsSync(fileOf(rig)))
    const before = readFileSync(fileOf(rig), 'utf8')

    const dry = await rig.run(['--dry-run'])
    const refused = await rig.run()
    const wrong = await rig.run(['--quotas', rig.path('mistyped.json')])

    assert.is(refused.exitCode, 75, `${run.output()}\n${refused.stdout}${refused.stderr}`)
    assert.equal([dry.exitCode, wrong.exitCode], [0, 78])
    assert.is(new Set(rig.events().map(it => it.run)).size, 1)
    assert.is(readFileSync(fileOf(rig), 'utf8'), before)
    run.child.kill('SIGTERM')
    await run.ended
  },
)

test('a model of which a file is missing has no bytes', async () => {
  await using rig = await trainerRig()
  const core = join(rig.modelsDir, 'core')
  const model = onnxModel({ external: [{ location: 'weights.bin' }] })
  await trainAndPublish(core, { 'core.onnx': model, 'weights.bin': 'weights' })
  const bytes = async () => {
    await feed(rig)
    return figuresOf(rig).get('model_bytes{model="core"}')
  }

  const whole = await bytes()
  rmSync(join(core, 'current/weights.bin'))
  const half = await bytes()

  assert.equal([whole, half], [model.length + 7, 0])
})

inSweep('the figures can be read by a collector that is another user, whatever the umask', async () => {
  await using rig = await trainerRig()

  await rig.run(['core'], { prefix: ['sh', '-c', 'umask 077; exec "$@"', 'sh'] })

  assert.is(statSync(fileOf(rig)).mode & 0o777, 0o644)
})

inSweep('figures that cannot be written are warned of once, and end no run', async () => {
  await using rig = await trainerRig()
  mkdirSync(`${fileOf(rig)}.tmp`, { recursive: true })

  const { exitCode, stdout } = await rig.run(['core'])

  assert.is(exitCode, 0)
  assert.is(stdout.match(/WARNING metrics\.prom is not up to date: /g)?.length, 1)
})

traceTestInSweep(
  'a start with nothing to train makes the figures with three classes of the library, not all of it',
  async () => {
    await using rig = await trainerRig()
    const trace = rig.path('trace')
    const prefix = ['strace', '-f', '--seccomp-bpf', '-qq', '-o', trace, '-e', 'trace=open,openat']
    await rig.run(['core'])
    const before = figuresOf(rig)

    await rig.run(['core'], { prefix, byTsx: true }) // where the library is in its own files

    const idle = readFileSync(trace, 'utf8')
    assert.match(idle, /prom-client\/lib\/gauge\.js/)
    assert.ok(!idle.includes('prom-client/index.js'))
    assert.ok(
      figuresOf(rig).get('last_success_timestamp_seconds')! > before.get('last_success_timestamp_seconds')!,
    )
    assert.equal([...figuresOf(rig).keys()], [...before.keys()])
  },
)

test('the metrics have what a training says of its progress, until it says no more, ends, or is killed', async () => {
  await using rig = await trainerRig()
  const metrics = openMetrics(rig)
  const told = async () => {
    metrics.take(stamped({ event: 'run.done', exitCode: 1, seconds: 1, message: '' })) // writes
    await metrics.close()
    return [
      figuresOf(rig).get('progress_ratio{model="core"}'),
      figuresOf(rig).get('progress_left_seconds{model="core"}'),
    ]
  }
  const say = (share: number | null, secondsLeft?: number) =>
    metrics.take(
      stamped({
        event: 'train.progress',
        job: 'core',
        share,
        ...(secondsLeft !== undefined && { secondsLeft }),
      }),
    )

  say(0.25)
  assert.equal(await told(), [0.25, undefined])
  say(0.5, 60)
  assert.equal(await told(), [0.5, 60])
  say(null)
  assert.equal(await told(), [undefined, undefined])
  say(0.5, 60)
  metrics.take(stamped({ event: 'train.exit', job: 'core', exitCode: 0, signal: null, seconds: 1 }))
  assert.equal(await told(), [undefined, undefined])
  say(0.5, 60)
  assert.equal(await told(), [0.5, 60])
  const next = openMetrics(rig)
  next.take(stamped({ event: 'run.done', exitCode: 1, seconds: 1, message: '' }))
  await next.close()
  assert.is(figuresOf(rig).get('progress_ratio{model="core"}'), undefined)
})

test('the figures are brought up to date while a training runs or a run waits, every ten seconds at most', async () => {
  await using rig = await trainerRig()
  const metrics = openMetrics(rig)
  const job = 'core'
  const usage = (usedBytes: number) =>
    stamped({ event: 'storage.usage', job, phase: 'training', usedBytes, limitBytes: 1, freeBytes: 1 })
  const written = async () => {
    await metrics.close()
    return figuresOf(rig).get('usage_bytes{model="core"}')
  }
  const quotas = { ...readQuotas(rig.path('quotas.json')), maxLoadPerCore: 0.000001 }
  const journal = new Journal()
  const { signal } = new AbortController()
  const waiting = { command: { maxWaitMs: 20 }, quotas, journal, metrics, signal } as unknown as Run
  const { now } = performance
  metrics.take(usage(1))
  metrics.take(stamped({ event: 'job.start', job, dir: '', limitBytes: 1, guarantee: 'watch' }))

  const atStart = await written()
  metrics.take(usage(2))
  const atOnce = await written()
  performance.now = () => now.call(performance) + 10_001
  metrics.take(usage(3))
  const later = await written()
  metrics.take(usage(4))
  performance.now = () => now.call(performance) + 20_002
  await waitForQuiet(waiting, 'dpi')
  performance.now = now
  const afterWaiting = await written()

  assert.equal([atStart, atOnce, later, afterWaiting], [1, 1, 3, 4])
})

test('parseMetrics() reads what renderMetrics() writes, and passes over all else', async () => {
  const samples = new Map([
    ['free_bytes{model="core"}', 5],
    ['run_in_progress', 1],
  ])

  const page = await renderMetrics(samples)

  assert.equal(parseMetrics(page), samples)
  assert.equal(parseMetrics(`${page}ransomeye_trainer_other many\n`), samples)
})

promtoolTest(
  'the alerts fire for a missing or adopted model, a failed, killed or impossible run and missing figures, else not',
  async () => {
    const service = 'node_systemd_unit_state{name="ransomeye-trainer.service",state='
    await using rig = await trainerRig()
    const cases: { series: Record<string, string>; fires: string[] }[] = [
      {
        series: {
          'model_bytes{model="core"}': '5000',
          'model_trained_timestamp_seconds{model="core"}': '7',
          last_exit_code: '0',
          run_in_progress: '0',
        },
        fires: [],
      },
      { series: { 'model_bytes{model="core"}': '5000' }, fires: ['RansomeyeModelNotTrained'] },
      {
        series: { [`${service}"inactive"}`]: '1', update_timestamp_seconds: '0', run_in_progress: '0' },
        fires: [],
      },
      {
        series: { [`${service}"failed"}`]: '1', update_timestamp_seconds: '0', run_in_progress: '0' },
        fires: ['RansomeyeServiceFailed'],
      },
      {
        series: { [`${service}"activating"}`]: '1', update_timestamp_seconds: '0', run_in_progress: '0' },
        fires: ['RansomeyeServiceFailed'],
      },
      {
        series: { [`${service}"activating"}`]: '1', update_timestamp_seconds: '6000', run_in_progress: '1' },
        fires: [],
      },
      { series: { [`${service}"failed"}`]: '0' }, fires: ['RansomeyeMetricsMissing'] },
      {
        series: { 'model_bytes{model="core"}': '0', last_exit_code: '143' },
        fires: ['RansomeyeModelMissing'],
      },
      {
        series: { last_exit_code: '2', run_in_progress: '0', update_timestamp_seconds: '0' },
        fires: ['RansomeyeTrainingFailed'],
      },
      {
        series: { 'model_refused{model="core"}': '1', last_exit_code: '4', run_in_progress: '0' },
        fires: ['RansomeyeModelRefused'],
      },
      {
        series: { run_in_progress: '1', update_timestamp_seconds: '0' },
        fires: ['RansomeyeTrainingStalled'],
      },
      { series: { run_in_progress: '1', update_timestamp_seconds: '6000' }, fires: [] },
    ]
    const tests = cases.map(({ series, fires }) => ({
      interval: '1m',
      input_series: Object.entries(series).map(([name, value]) => ({
        series: name.startsWith('node_') ? name : `ransomeye_trainer_${name}`,
        values: `${value}x120`,
      })),
      promql_expr_test: [
        {
          expr: 'count by (alertname) (ALERTS{alertstate="firing"})',
          eval_time: '2h',
          exp_samples: fires.map(alertname => ({ labels: `{alertname="${alertname}"}`, value: 1 })),
        },
      ],
    }))
    // JSON is YAML.
    writeFileSync(rig.path('tests.yml'), JSON.stringify({ rule_files: [alerts], tests }))

    const checked = spawnSync('promtool', ['check', 'rules', alerts], { encoding: 'utf8' })
    const tested = spawnSync('promtool', ['test', 'rules', rig.path('tests.yml')], { encoding: 'utf8' })

    assert.is(checked.status, 0, checked.stderr)
    assert.match(checked.stdout, /SUCCESS: 7 rules found/)
    assert.is(tested.status, 0, tested.stdout + tested.stderr)
  },
)

test.run()
