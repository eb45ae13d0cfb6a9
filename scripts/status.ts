/** How do the jobs stand? node --import tsx scripts/status.ts [core] [dpi] [agent] [--json] */
import { readStatus } from '../lib/reports/status.ts'
import { drawStatus } from '../lib/reports/status-table.ts'
import { openModelsDir } from '../lib/settings/folders.ts'
import { type Program, readOptions } from '../lib/settings/options.ts'
import { chooseJobs, placeOptions, readPlace } from '../lib/settings/place.ts'
import { isEntry, print, runScript } from '../lib/settings/script.ts'

const options = {
  ...placeOptions,
  fleet: {
    type: 'string',
    value: 'FILE',
    help: 'how all sites of this fleet stand, as fleet --status does',
  },
  json: { type: 'boolean', help: 'one JSON object on stdout, sizes in bytes' },
} as const

const program: Program<typeof options> = {
  name: 'scripts/status.ts',
  summary: "Show each job's model, usage, and last training, and what runs now.",
  positionals: '[core] [dpi] [agent]',
  options,
  example: 'core --models-dir /tmp/models',
  notes: `It changes nothing, and may be asked while a run goes on.
Exit codes: 0 shown, whatever it shows, 3 the models folder cannot be read,
64 wrong usage, 78 quotas.json invalid`,
}

/**
 * Show the status.
 *
 * @returns the table or the JSON, or the text that was asked for with `--help` or `--version`
 * @throws {TrainerError} `usage`, `config`; `storage` if this user cannot look into the models folder
 */
async function showStatus(args: string[]): Promise<string> {
  const read = readOptions(args, program)
  if (typeof read === 'string') return read
  const { values, positionals } = read
  if (values.fleet !== undefined) return showFleet(values.fleet, positionals, values.json ?? false)
  const jobs = chooseJobs(positionals)
  const place = readPlace(values)
  const modelsDir = openModelsDir(place.modelsDir, true)
  const status = await readStatus(modelsDir, place.quotas, jobs)
  return values.json ? JSON.stringify(status) : drawStatus(status, isColoured(), process.stdout.columns)
}

async function showFleet(file: string, names: string[], json: boolean): Promise<string> {
  const [{ readFleet }, { showSites }] = await Promise.all([
    import('../lib/fleet/fleet-file.ts'),
    import('./fleet.ts'),
  ])
  return showSites(readFleet(file, names), json)
}

function isColoured(): boolean {
  return process.stdout.isTTY && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    print(await showStatus(process.argv.slice(2)))
    return 0
  })
}
