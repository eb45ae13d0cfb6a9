import { type Activities, type Activity, background } from './host-activities.ts'
import type { Random } from './random.ts'
import { drawRow } from './range-table.ts'

/** One minute of a host, as its agent reports it. */
export type HostWindow = {
  connections: number
  sentBytes: number
  receivedBytes: number
  processes: number
  filesRead: number
  filesOverwritten: number
  filesCreated: number
  filesRenamed: number
  filesDeleted: number
  foldersTouched: number
  readBytes: number
  writtenBytes: number
  /** Mean entropy of the written data in bits a byte; 0 if nothing was written. */
  writtenEntropyBits: number
  cpuPercent: number
  memoryPercent: number
}

/** A minute, the work that went on, and the ransomware that ran beside it, if any did. */
export type Minute = { window: HostWindow; work: string; family: string | undefined }

export type World = {
  work: Activities
  families: Activities
  /** The greatest factor by which a host is busier or quieter than the tables. */
  hostSpread: number
  /** The chance that ransomware runs on a host at some time. */
  infected: number
}

/** A host's own value for each quantity of an activity. */
type Rates = Record<keyof Activity, number>

/** The shares and levels, which are drawn evenly and do not grow with a host. */
const levels: ReadonlySet<string> = new Set<keyof Activity>([
  'created',
  'renamed',
  'deleted',
  'entropy',
  'cpu',
  'memory',
])

/** Simulate `minutes` of one host: it changes its work now and then, and ransomware may run on it. */
export function simulateHost(
  { work, families, hostSpread, infected }: World,
  minutes: number,
  random: Random,
): Minute[] {
  const tempo = random.logUniform(1 / hostSpread, hostSpread)
  const base = settle(background, 1, random)
  const family = random.chance(infected) ? random.pick(Object.keys(families)) : undefined
  const attack = family ? settle(families[family]!, tempo, random) : undefined
  const attackStart = random.below(minutes)
  const attackEnd = attackStart + 5 + random.below(25)

  const timeline: Minute[] = []
  while (timeline.length < minutes) {
    const name = random.pick(Object.keys(work))
    const rates = settle(work[name]!, tempo, random)
    for (let left = 3 + random.below(20); left > 0 && timeline.length < minutes; left--) {
      const isAttacked = attack && timeline.length >= attackStart && timeline.length < attackEnd
      const active = isAttacked ? [base, rates, attack] : [base, rates]
      timeline.push({ window: observe(active, random), work: name, family: isAttacked ? family : undefined })
    }
  }
  return timeline
}

/** Draw a host's own values. A busier host has more of every quantity that is not a level. */
function settle(activity: Activity, tempo: number, random: Random): Rates {
  const rates = drawRow(activity, levels, random)
  for (const quantity of Object.keys(rates) as (keyof Rates)[])
    if (!levels.has(quantity)) rates[quantity] *= tempo
  return rates
}

/** Observe one minute of the active activities. Minutes of the same activity vary. */
function observe(active: readonly Rates[], random: Random): HostWindow {
  const window: HostWindow = {
    connections: 0,
    sentBytes: 0,
    receivedBytes: 0,
    processes: 0,
    filesRead: 0,
    filesOverwritten: 0,
    filesCreated: 0,
    filesRenamed: 0,
    filesDeleted: 0,
    foldersTouched: 0,
    readBytes: 0,
    writtenBytes: 0,
    writtenEntropyBits: 0,
    cpuPercent: 0,
    memoryPercent: random.uniform(10, 30),
  }
  let information = 0
  for (const rates of active) {
    const pace = Math.exp(random.normal(0, 0.4))
    const read = random.poisson(rates.read * pace)
    const written = random.poisson(rates.written * pace)
    const created = random.poisson(written * rates.created)
    const writtenBytes = written * rates.writtenSize * Math.exp(random.normal(0, 0.3))
    window.connections += random.poisson(rates.connections * pace)
    window.sentBytes += rates.sent * pace
    window.receivedBytes += rates.received * pace
    window.processes += random.poisson(rates.processes * pace)
    window.filesRead += read
    window.filesCreated += created
    window.filesOverwritten += Math.max(0, written - created)
    window.filesRenamed += random.poisson(written * rates.renamed)
    window.filesDeleted += random.poisson(written * rates.deleted)
    window.foldersTouched += random.poisson((read + written) * Math.min(1, rates.folders))
    window.readBytes += read * rates.readSize * Math.exp(random.normal(0, 0.3))
    window.writtenBytes += writtenBytes
    window.cpuPercent += rates.cpu * pace
    window.memoryPercent += rates.memory
    information += writtenBytes * Math.min(8, Math.max(0, random.normal(rates.entropy, 0.1)))
  }
  window.writtenEntropyBits = window.writtenBytes > 0 ? information / window.writtenBytes : 0
  window.cpuPercent = Math.min(100, window.cpuPercent)
  window.memoryPercent = Math.min(100, window.memoryPercent)
  return window
}
