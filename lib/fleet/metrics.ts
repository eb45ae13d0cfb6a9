import { messageOf } from '../errors.ts'
import { loadPrometheus } from '../run/metrics/exposition.ts'
import { replaceFileSync } from '../system/durable.ts'
import { type SiteState, siteStates } from './fleet-events.ts'

const EVERY_MS = 10_000

/** Keeps the count of a fleet's sites by state in a file for Prometheus's textfile collector. */
export class FleetMetrics {
  readonly #path: string
  readonly #warn: (message: string) => void
  #writtenMs = Number.NEGATIVE_INFINITY
  #hasWarned = false

  /** @param warn told once if the file cannot be written; the fleet goes on */
  constructor(path: string, warn: (message: string) => void) {
    this.#path = path
    this.#warn = warn
  }

  /** Write the counts, every ten seconds at most unless it is the last time. */
  async write(counts: Record<SiteState, number>, isLast = false): Promise<void> {
    if (!isLast && performance.now() - this.#writtenMs < EVERY_MS) return
    this.#writtenMs = performance.now()
    try {
      replaceFileSync(this.#path, await render(counts))
    } catch (error) {
      if (!this.#hasWarned) this.#warn(`${this.#path} is not up to date: ${messageOf(error)}`)
      this.#hasWarned = true
    }
  }
}

async function render(counts: Record<SiteState, number>): Promise<string> {
  const { Gauge, Registry } = loadPrometheus()
  const registry = new Registry()
  const sites = new Gauge({
    name: 'ransomeye_trainer_fleet_sites',
    help: 'Sites of the fleet by state, as the last look at them found.',
    labelNames: ['state'],
    registers: [registry],
  })
  for (const state of siteStates) sites.set({ state }, counts[state])
  const updated = new Gauge({
    name: 'ransomeye_trainer_fleet_update_timestamp_seconds',
    help: 'When the sites were counted.',
    registers: [registry],
  })
  updated.set(Date.now() / 1000)
  return registry.metrics()
}
