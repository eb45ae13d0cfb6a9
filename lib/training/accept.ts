import { TrainerError } from '../errors.ts'
import { type Generation, rolledBackFrom } from '../models/generations.ts'
import { contentOf, readManifest } from '../models/manifest.ts'
import type { Staged } from '../models/stage.ts'
import { metricsOf, TRAINER_METADATA } from '../models/trainer-metadata.ts'
import type { Job } from '../run.ts'
import { foldersIn } from '../settings/layout.ts'
import { commandFor } from '../system/start-command.ts'
import { formatFigure } from '../text.ts'
import { verdictOf } from './accept-command.ts'
import type { Budget } from './preflight.ts'

/** The figures that were asked for, by name: what the trainer told, and the least that would do. */
type Asked = Record<string, { figure: number | null; limit: number }>

/**
 * Decide whether a new generation takes the place of the current one: by the trainer's figures, by the job's own command,
 * and after a rollback by what tells that it is not the model that was rolled back.
 *
 * @throws {TrainerError} `not-accepted`, which by then is an event with the figures; or the interruption
 */
export async function judgeCandidate(
  job: Job,
  budget: Budget,
  staged: Staged,
  current: Generation | undefined,
): Promise<void> {
  const { name, quota, publishedDir, emit } = job
  const metrics = figuresOf(job, staged, current)
  const reason =
    repetitionOf(job, staged) ??
    shortfallOf(metrics) ??
    (quota.accept?.command && (await verdictOf(job, budget, quota.accept.command, staged, current)))
  if (!reason) return
  emit({ event: 'model.refuse', job: name, reason, metrics })
  throw new TrainerError(
    'not-accepted',
    `${name}'s new model is not accepted: ${reason}; ${current || job.check?.missing === false ? 'what is published stays' : 'nothing is published'}, ` +
      `and the new one is in ${foldersIn(publishedDir).candidateDir}`,
  )
}

/** Pick the figures that `accept` asks for. A drop counts only against a published model that is valid. */
function figuresOf({ quota, check }: Job, staged: Staged, current: Generation | undefined): Asked {
  const told = metricsOf(staged.manifest.metadata)
  const isCurrentValid = current !== undefined && !check?.missing
  const before = isCurrentValid ? metricsOf(readManifest(current.dir)?.metadata ?? {}) : {}
  const asked: Asked = {}
  for (const [metric, { min, maxDrop }] of Object.entries(quota.accept?.metrics ?? {})) {
    const former = maxDrop === undefined ? undefined : before[metric]
    const limits = [min, former === undefined ? undefined : former - maxDrop!].filter(it => it !== undefined)
    // Differences of decimal fractions are not exact: a drop by as much as is allowed must not be one too many.
    if (limits.length) asked[metric] = { figure: told[metric] ?? null, limit: roundOff(Math.max(...limits)) }
  }
  return asked
}

function roundOff(figure: number): number {
  return Number(figure.toPrecision(12))
}

function shortfallOf(asked: Asked): string | undefined {
  const short = Object.entries(asked).filter(([, { figure, limit }]) => figure === null || !(figure >= limit))
  if (!short.length) return undefined
  const words = short.map(
    ([metric, { figure, limit }]) =>
      `${metric} is ${figure === null ? 'not reported' : formatFigure(figure)}, at least ${formatFigure(limit)} is asked for`,
  )
  const isUntold = short.some(([, { figure }]) => figure === null)
  const remedy = isUntold ? [`a figure is a number in performance_metrics of ${TRAINER_METADATA}`] : []
  return [words.join(', '), ...remedy].join('; ')
}

/**
 * After a rollback: is this the model that was rolled back, or one of the same data that nothing else vouches for? What is
 * told as `trained_on` says which data it was.
 */
function repetitionOf({ name, quota, publishedDir, run }: Job, { manifest }: Staged): string | undefined {
  const hasAccept = quota.accept?.command || Object.keys(quota.accept?.metrics ?? {}).length
  const adopted = new Set(manifest.metadata.adopted)
  const trained = contentOf(manifest).filter(it => !adopted.has(it.name))
  for (const { number, dir } of rolledBackFrom(publishedDir)) {
    const former = readManifest(dir)
    if (!former) continue
    const hashes = new Set(contentOf(former).map(({ sha256 }) => sha256))
    if (trained.every(({ sha256 }) => hashes.has(sha256)))
      return `it is the model of generation ${number}, from which ${name} was rolled back`
    const [data, formerData] = [manifest, former].map(({ metadata }) => metadata.trained_on)
    const isOther = data !== 'unknown' && formerData !== 'unknown' && data !== formerData
    if (!hasAccept && !isOther) {
      const { modelsDir, command } = run
      const place = { modelsDir, quotasFile: command.quotasFile }
      return (
        `${name} was rolled back from generation ${number}, and nothing says that this one is better: it was trained on ` +
        'the same data, as far as trained_on tells, and the job has no accept; ' +
        `to end the rollback: ${commandFor(place, 'scripts/rollback.ts', name, '--release')}`
      )
    }
  }
  return undefined
}
