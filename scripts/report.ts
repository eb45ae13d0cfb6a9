/** Draw what the last runs did: node --import tsx scripts/report.ts [--out FILE] [--runs N] [--fleet FILE] */
import { statSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { isErrno, messageOf, TrainerError } from '../lib/errors.ts'
import { readRuns } from '../lib/reports/history.ts'
import { stateDirOf } from '../lib/settings/layout.ts'
import { type Program, readOptions, type Values } from '../lib/settings/options.ts'
import { placeOptions, readPlace } from '../lib/settings/place.ts'
import { isEntry, print, runScript } from '../lib/settings/script.ts'
import { outputFile, replaceDurably } from '../lib/system/durable.ts'

const DEFAULT_RUNS = 10

const options = {
  ...placeOptions,
  out: { type: 'string', value: 'FILE', help: 'the report, replaced as a whole (default: report.html)' },
  runs: { type: 'string', value: 'N', help: `how many of the last runs (default: ${DEFAULT_RUNS})` },
  fleet: {
    type: 'string',
    value: 'FILE',
    help: 'all sites of this fleet on one page (1 run a site)',
  },
} as const

const program: Program<typeof options> = {
  name: 'scripts/report.ts',
  summary: 'Draw the last runs as one HTML file: timeline, disk usage, deletions, models.',
  options,
  example: '--out /tmp/report.html',
  notes: `Exit codes: 0 written, 3 no state of a run there, it cannot be read or the
report not written, 64 wrong usage, 78 quotas.json invalid`,
}

/**
 * Write the report.
 *
 * @returns the line that says where it is, or the text that was asked for with `--help` or `--version`
 * @throws {TrainerError} `usage`, `config`; `storage` if the journal cannot be read or the file not written
 */
export async function writeReport(args: string[]): Promise<string> {
  const read = readOptions(args, program)
  if (typeof read === 'string') return read
  const { values } = read
  const madeAt = new Date()
  const page = values.fleet === undefined ? await drawRuns(values, madeAt) : await drawSites(values, madeAt)
  const out = resolve(values.out ?? 'report.html')
  try {
    const target = outputFile(out)
    const write = (temporary: string) => writeFile(temporary, page, { flag: 'wx' })
    await replaceDurably(target, write, `${target}.${process.pid}.tmp`)
  } catch (cause) {
    if (cause instanceof TrainerError) throw cause
    const reason = `${messageOf(cause)}; choose another --out`
    throw new TrainerError('storage', `Cannot write ${out}: ${reason}`, { cause })
  }
  return `The report is in ${out}`
}

async function drawRuns(values: Values<typeof options>, madeAt: Date): Promise<string> {
  const keep = wholeRuns(values.runs ?? String(DEFAULT_RUNS))
  const { quotas, modelsDir } = readPlace(values)
  const { runs } = readRuns(findState(modelsDir), keep)
  const [{ drawPage }, { listModels }] = await Promise.all([
    import('../lib/reports/html/page.ts'),
    import('../lib/reports/html/model-cards.ts'),
  ])
  const models = await listModels(modelsDir, quotas)
  return drawPage({ modelsDir, runs, models, madeAt })
}

async function drawSites(values: Values<typeof options>, madeAt: Date): Promise<string> {
  if (values['models-dir'] ?? values.quotas)
    throw new TrainerError(
      'usage',
      'Choose --fleet, or --models-dir and --quotas: a fleet file has both for each site',
    )
  const keep = wholeRuns(values.runs ?? '1')
  const [{ readFleet }, { readSite }, { drawFleetPage }] = await Promise.all([
    import('../lib/fleet/fleet-file.ts'),
    import('../lib/reports/site-report.ts'),
    import('../lib/reports/html/fleet-page.ts'),
  ])
  const { file, sites } = readFleet(values.fleet!)
  const reports = []
  for (const site of sites) reports.push(await readSite(site, keep))
  return drawFleetPage(file, reports, madeAt)
}

/** A mistyped folder must not replace an earlier report by an empty one. */
function findState(modelsDir: string): string {
  const stateDir = stateDirOf(modelsDir)
  try {
    statSync(stateDir)
    return stateDir
  } catch (cause) {
    const isMissing = isErrno(cause, 'ENOENT', 'ENOTDIR')
    const reason = isMissing ? 'it has no .trainer, no run was made there' : messageOf(cause)
    const remedy = 'give the folder of a run with --models-dir'
    throw new TrainerError('storage', `Cannot report on ${modelsDir}: ${reason}; ${remedy}`, { cause })
  }
}

function wholeRuns(value: string): number {
  if (/^[1-9]\d{0,3}$/.test(value)) return Number(value)
  throw new TrainerError('usage', `--runs is "${value}", expected a whole number from 1 to 9999`)
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    print(await writeReport(process.argv.slice(2)))
    return 0
  })
}
