import { existsSync, lstatSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf } from '../errors.ts'
import type { TrainerEvent } from '../events.ts'
import { currentGeneration, publishedDirOf } from '../models/generations.ts'
import { readManifest } from '../models/manifest.ts'
import { type JobName, jobNames, type Quotas } from '../quotas.ts'
import { layout, stateDirOf } from '../settings/layout.ts'
import { capOf, freeSpace } from '../storage/capacity.ts'
import { type Family, nameSample, parseMetrics, renderMetrics } from './metrics/exposition.ts'
import { PAGE, readPage, replacePage } from './metrics/page.ts'

const REFRESH_EVERY_MS = 10_000

/**
 * Keeps `.trainer/metrics.prom` for the textfile collector of Prometheus's node_exporter. The file is written when a
 * training begins, while it runs, and when a job and the run end. Counters go on from the file of the run before.
 *
 * A reader finds the old file or the new one; a power cut may lose the new one. If the file cannot be written, `warn` is
 * called once, and the run goes on.
 */
export class Metrics {
  readonly #modelsDir: string
  readonly #quotas: Quotas
  readonly #warn: (message: string) => void
  readonly #samples: Map<string, number>
  #startedAt = ''
  /** Do the figures of the last run change? Pruning alone says nothing about how the last training ended. */
  readonly #looksAfterModels: boolean
  #trains = false
  #hasWarned = false
  #writtenMs = 0
  #writing = Promise.resolve()

  constructor(modelsDir: string, quotas: Quotas, looksAfterModels: boolean, warn: (message: string) => void) {
    this.#modelsDir = modelsDir
    this.#quotas = quotas
    this.#looksAfterModels = looksAfterModels
    this.#warn = warn
    this.#samples = parseMetrics(readPage(stateDirOf(modelsDir)))
    for (const job of jobNames) this.#tell(job) // of a run that was killed
  }

  /** Take the figures that an event has. */
  take(event: TrainerEvent): void {
    if ('usedBytes' in event) this.#set('usage_bytes', event.usedBytes, event.job)
    switch (event.event) {
      case 'run.start':
        this.#startedAt = event.time
        break
      case 'job.start':
        this.#trains = true
        this.#set('run_in_progress', 1)
        this.#set('run_start_timestamp_seconds', secondsOf(this.#startedAt))
        this.#write()
        break
      case 'storage.usage':
        this.refresh()
        break
      case 'storage.prune':
        this.#add('pruned_bytes_total', event.bytes, event.job)
        break
      case 'train.progress':
        this.#tell(event.job, event.share ?? undefined, event.secondsLeft)
        this.refresh()
        break
      case 'train.exit':
        this.#tell(event.job)
        break
      case 'train.freeze':
        this.#add('freezes_total', 1, event.job)
        break
      case 'model.refuse':
        this.#set('model_refused', 1, event.job)
        break
      case 'model.publish':
        this.#set('model_refused', 0, event.job)
        break
      case 'model.rollback':
        this.#write()
        break
      case 'job.done':
      case 'job.fail':
        if (this.#trains) this.#write()
        break
      case 'run.done':
        this.#set('run_in_progress', 0)
        if (this.#looksAfterModels) this.#end(event)
        this.#write()
    }
  }

  /** Show, at most every ten seconds, that a run that trains is alive. */
  refresh(): void {
    if (this.#trains && performance.now() - this.#writtenMs > REFRESH_EVERY_MS) this.#write()
  }

  /** Wait until every figure taken is in the file. */
  async close(): Promise<void> {
    await this.#writing
  }

  #end({ time, exitCode, seconds }: Extract<TrainerEvent, { event: 'run.done' }>): void {
    this.#set('run_start_timestamp_seconds', secondsOf(this.#startedAt))
    this.#set('last_duration_seconds', seconds)
    this.#set('last_exit_code', exitCode)
    if (exitCode === 0) this.#set('last_success_timestamp_seconds', secondsOf(time))
  }

  #set(family: Family, value: number, job?: JobName): void {
    this.#samples.set(nameSample(family, job), value)
  }

  /** How far a training says it is: nothing once it does not, or has ended. */
  #tell(job: JobName, share?: number, secondsLeft?: number): void {
    for (const [family, value] of [
      ['progress_ratio', share],
      ['progress_left_seconds', secondsLeft],
    ] as const) {
      if (value === undefined) this.#samples.delete(nameSample(family, job))
      else this.#set(family, value, job)
    }
  }

  #add(family: Family, amount: number, job: JobName): void {
    this.#set(family, (this.#samples.get(nameSample(family, job)) ?? 0) + amount, job)
  }

  #write(): void {
    this.#writtenMs = performance.now()
    this.#writing = this.#writing
      .then(() => this.#writeNow())
      .catch(error => {
        if (!this.#hasWarned) this.#warn(`${PAGE} is not up to date: ${messageOf(error)}`)
        this.#hasWarned = true
      })
  }

  async #writeNow(): Promise<void> {
    for (const job of jobNames) await this.#look(job)
    this.#set('update_timestamp_seconds', Date.now() / 1000)
    replacePage(stateDirOf(this.#modelsDir), await renderMetrics(this.#samples))
  }

  /** Look up the figures that no event has. */
  async #look(job: JobName): Promise<void> {
    const dir = layout(this.#modelsDir, job).jobDir
    const isThere = existsSync(dir)
    const { quotaBytes } = this.#quotas.jobs[job]
    const capBytes = isThere ? capOf(dir, quotaBytes) : undefined
    this.#set('limit_bytes', capBytes ?? quotaBytes, job)
    this.#set('free_bytes', freeSpace(isThere ? dir : this.#modelsDir), job)
    this.#add('pruned_bytes_total', 0, job)
    this.#add('freezes_total', 0, job)
    this.#add('model_refused', 0, job)
    const { number } = currentGeneration(dir) ?? {}
    if (number !== undefined) this.#set('model_generation', number, job)
    else this.#samples.delete(nameSample('model_generation', job))
    const { bytes, trainedAt } = lookAtModel(dir)
    this.#set('model_bytes', bytes, job)
    const trained = nameSample('model_trained_timestamp_seconds', job)
    if (trainedAt > 0) this.#samples.set(trained, trainedAt / 1000)
    else this.#samples.delete(trained)
    if (this.#samples.has(nameSample('usage_bytes', job)) || !isThere) return
    const { checkUsage } = await import('../storage.ts')
    const usedBytes = await checkUsage(dir).catch(() => undefined) // a run of the job says why
    if (usedBytes !== undefined) this.#set('usage_bytes', usedBytes, job)
  }
}

function lookAtModel(dir: string): { bytes: number; trainedAt: number } {
  const publishedDir = publishedDirOf(dir)
  const { files = {}, metadata } = readManifest(publishedDir) ?? {}
  const sizes = Object.keys(files).map(
    name => lstatSync(join(publishedDir, name), { throwIfNoEntry: false })?.size,
  )
  const trainedAt = metadata?.adopted.length ? Number.NaN : Date.parse(String(metadata?.trained_at))
  // A model with a missing file counts as none.
  return { bytes: sizes.reduce<number>((sum, size) => sum + (size ?? Number.NaN), 0) || 0, trainedAt }
}

function secondsOf(time: string): number {
  return Date.parse(time) / 1000
}
