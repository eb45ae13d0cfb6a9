/** Train many sites on many machines, by Slurm: node --import tsx scripts/fleet.ts FILE [SITE …] [--detach] … */
import { join } from 'node:path'
import { TrainerError } from '../lib/errors.ts'
import { type FleetEventBody, leaving, stampFleetEvent } from '../lib/fleet/fleet-events.ts'
import { type Fleet, readFleet } from '../lib/fleet/fleet-file.ts'
import { Follower, interruptionOf, summarize } from '../lib/fleet/follow.ts'
import { FollowedSite } from '../lib/fleet/followed-site.ts'
import { countStates, FleetLiveList } from '../lib/fleet/live-list.ts'
import { FleetMetrics } from '../lib/fleet/metrics.ts'
import type { Outcome } from '../lib/fleet/outcome.ts'
import { FleetJsonLines, type FleetOutput, FleetTextLines } from '../lib/fleet/output.ts'
import { readSlurmStates } from '../lib/fleet/states.ts'
import { type Submission, submitSites, trySites } from '../lib/fleet/submit.ts'
import { drawFleet, siteStatus } from '../lib/reports/fleet-table.ts'
import { readSite } from '../lib/reports/site-report.ts'
import { readRecord } from '../lib/run/job-record.ts'
import { listenForSignals } from '../lib/run/signals.ts'
import { type Program, parseDuration, readOptions, type Values } from '../lib/settings/options.ts'
import { isEntry, print, runScript } from '../lib/settings/script.ts'
import { nameCommand, root, startOf } from '../lib/system/start-command.ts'
import { count, escapeText, quoteWord } from '../lib/text.ts'

const options = {
  retrain: { type: 'boolean', help: 'train although the published models are valid' },
  'dry-run': { type: 'boolean', help: 'ask Slurm whether it would take the jobs; submit nothing' },
  detach: { type: 'boolean', help: 'submit, say how to come back, and end' },
  attach: { type: 'boolean', help: 'submit nothing; follow the jobs submitted last' },
  cancel: { type: 'boolean', help: 'end those jobs, and wait for their end' },
  status: { type: 'boolean', help: 'show how the sites stand' },
  poll: { type: 'string', value: 'TIME', help: 'how often Slurm is asked, at first (default: 5s)' },
  json: { type: 'boolean', help: 'one JSON object a line, nothing else, on stdout' },
} as const

const program: Program<typeof options> = {
  name: 'scripts/fleet.ts',
  summary: 'Train many sites on the machines of a Slurm cluster, one job a site.',
  positionals: 'FILE [SITE ...]',
  options,
  example: 'fleet.json --detach',
  notes: `Exit codes: 0 all sites done, else that of the worst site, as of a run:
75 also a node lost, a job held or one done without a run, 78 also refused by
Slurm, 143 cancelled; 129 terminal gone (the jobs go on), 130 SIGINT, 143
SIGTERM (all are ended); of --status and --cancel 0`,
}

const modes = ['dry-run', 'detach', 'attach', 'cancel', 'status'] as const

/**
 * Do what the command line says.
 *
 * @returns the exit status
 * @throws {TrainerError} `usage`, `config`; `unavailable` if Slurm does not answer; `sighup`
 */
async function manageFleet(args: string[]): Promise<number> {
  const read = readOptions(args, program)
  if (typeof read === 'string') {
    print(read)
    return 0
  }
  const { values, positionals } = read
  const [file, ...names] = positionals
  if (file === undefined)
    throw new TrainerError('usage', `Name the fleet file, as in ${nameCommand(program.name, 'fleet.json')}`)
  const chosen = modes.filter(mode => values[mode])
  if (chosen.length > 1)
    throw new TrainerError('usage', `Choose one of ${chosen.map(mode => `--${mode}`).join(' and ')}`)
  if (values.retrain && (values.attach || values.cancel || values.status))
    throw new TrainerError('usage', '--retrain is for jobs that are submitted now; leave it out')
  const pollMs = parseDuration('--poll', values.poll ?? '5s')
  const fleet = readFleet(file, names)
  if (values['dry-run']) return tryFleet(fleet, values)
  if (values.status) {
    print(await showSites(fleet, values.json ?? false))
    return 0
  }
  return runFleet(fleet, values, pollMs)
}

/**
 * How the sites stand: by their folders, and by Slurm.
 *
 * @returns a table, or a line of JSON a site
 */
export async function showSites(fleet: Fleet, json: boolean): Promise<string> {
  const { sites } = fleet
  const { states, fault } = await readSlurmStates(fleet)
  const statuses = []
  for (const site of sites) statuses.push(siteStatus(await readSite(site, 1), states.get(site.name)!))
  if (json) return statuses.map(status => JSON.stringify(status)).join('\n')
  const away = fault === undefined ? '' : `\nSlurm's controller does not answer: ${escapeText(fault)}`
  return `${drawFleet(statuses)}${away}`
}

/** Submit, follow, or end the jobs of a fleet. */
async function runFleet(fleet: Fleet, values: Values<typeof options>, pollMs: number): Promise<number> {
  const startedMs = performance.now()
  const output = chooseOutput(values)
  const emit = (body: FleetEventBody, time?: string) => output.take(stampFleetEvent(body, time))
  const isOld = values.attach || values.cancel
  const sites = fleet.sites.map(({ name }) => name)
  const interrupts = listenForSignals()
  const { signal } = interrupts
  const finish = ({ exitCode, message }: Outcome, next?: '--attach' | '--status') => {
    const seconds = (performance.now() - startedMs) / 1000
    emit({
      event: 'fleet.done',
      exitCode,
      seconds,
      message,
      ...(next && { next: commandFor(fleet, next) }),
    })
    return exitCode
  }
  try {
    const isFollowed = !values.detach && !values.cancel
    emit({
      event: 'fleet.start',
      file: fleet.file,
      sites,
      ...(isOld && { attached: true }),
      ...(isFollowed && { followed: true }),
    })
    const onSubmitted = (submission: Submission) => tellSubmission(submission, emit, isOld)
    const submissions = isOld
      ? recordsOf(fleet, onSubmitted)
      : await submitSites(fleet, values.retrain ?? false, signal, onSubmitted)
    const refusals = submissions.flatMap(it => ('refusal' in it ? [it.refusal] : []))
    const followed = submissions
      .flatMap(it => ('record' in it ? [new FollowedSite(it.site, it.record)] : []))
      .filter(({ kept }) => !values.cancel || !kept) // known to have ended
    if (values.detach && !signal.aborted) {
      const { exitCode, message } = summarize(refusals)
      const submitted = `${count(followed.length, 'site')} submitted`
      return finish({ exitCode, message: exitCode ? `${submitted}; ${message}` : submitted }, '--attach')
    }
    await follow(fleet, followed, output, emit, pollMs, values.cancel ?? false, signal)
    const outcomes = [...refusals, ...followed.flatMap(({ outcome }) => outcome ?? [])]
    const end = summarize(outcomes)
    if (values.cancel) {
      const message = followed.length
        ? `${count(followed.length, 'job')} ended`
        : 'no job to end: the last ones had ended before'
      return finish({ exitCode: 0, message })
    }
    const told = interruptionOf(signal) ?? end
    return finish(told, told.exitCode ? '--status' : undefined)
  } finally {
    interrupts.close()
  }
}

async function follow(
  fleet: Fleet,
  sites: FollowedSite[],
  output: FleetOutput,
  emit: (body: FleetEventBody) => void,
  pollMs: number,
  cancels: boolean,
  signal: AbortSignal,
): Promise<void> {
  const warn = (message: string) => emit({ event: 'warning', message })
  const metrics = fleet.metrics === undefined ? undefined : new FleetMetrics(fleet.metrics, warn)
  const shown: FleetOutput = {
    take: event => output.take(event),
    show: now => {
      output.show(now)
      void metrics?.write(countStates(now))
    },
    close: now => output.close(now),
  }
  const follower = new Follower(fleet, sites, shown, pollMs)
  try {
    if (cancels) await follower.cancel()
    await follower.follow(signal)
  } finally {
    shown.close(sites)
  }
  await metrics?.write(countStates(sites), true)
}

function tellSubmission(
  submission: Submission,
  emit: (body: FleetEventBody, time?: string) => void,
  isOld = false,
): void {
  const site = submission.site.name
  if ('record' in submission) {
    const { jobId, submittedAt } = submission.record
    emit({ event: 'site.submit', site, slurmJob: jobId, submittedAt }, isOld ? submittedAt : undefined)
  } else emit({ event: 'site.fail', site, ...submission.refusal })
}

/** The jobs that were submitted last, as the sites' folders have them. */
function recordsOf(fleet: Fleet, onFound: (submission: Submission) => void): Submission[] {
  return fleet.sites.flatMap(site => {
    const record = readRecord(site)
    if (!record) return []
    onFound({ site, record })
    return [{ site, record }]
  })
}

async function tryFleet(fleet: Fleet, { retrain = false, json }: Values<typeof options>): Promise<number> {
  const tried = await trySites(fleet, retrain)
  for (const it of tried) {
    if (json) print(JSON.stringify({ ...it, site: it.site.name }))
    else if ('refusal' in it) print(escapeText(`${it.site.name}: ${it.refusal.message}`))
    else
      print(
        `# ${escapeText(it.site.name)}\nsbatch ${it.options.map(quoteWord).join(' ')} <<'END'\n${it.script}END\n`,
      )
  }
  const taken = tried.filter(it => !('refusal' in it)).length
  if (!json) print(`Slurm would take ${taken} of ${count(tried.length, 'site')}`)
  return summarize(tried.map(it => ('refusal' in it ? it.refusal : { exitCode: 0, message: '' }))).exitCode
}

/** The command that does something else with the same fleet. */
function commandFor({ file, sites, isWhole }: Fleet, ...args: string[]): string {
  const names = isWhole ? [] : sites.map(({ name }) => name)
  return [...startOf(join(root, program.name)), file, ...names, ...args].map(quoteWord).join(' ')
}

function chooseOutput({ json, cancel }: Values<typeof options>): FleetOutput {
  if (json) return new FleetJsonLines()
  // A terminal without columns, such as a serial console, would show a list one character wide.
  return process.stdout.columns && process.env.TERM !== 'dumb'
    ? new FleetLiveList(cancel ? '' : leaving)
    : new FleetTextLines()
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(() => manageFleet(process.argv.slice(2)))
}
