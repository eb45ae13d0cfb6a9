import { currentGeneration, listGenerations } from '../models/generations.ts'
import { isWhole, readManifest } from '../models/manifest.ts'
import { metricsOf } from '../models/trainer-metadata.ts'
import { formatBytes, formatMetrics, formatSeconds } from '../text.ts'

/** A generation of a job, as `status` lists it. */
export type GenerationStatus = {
  generation: number
  isCurrent: boolean
  /** Are its files there? Of one that a job was rolled back from they may have made room. */
  isWhole: boolean
  /** When it was trained, in ISO 8601; `null` if no training here made it, or its time is unknown. */
  trainedAt: string | null
  /** Bytes of its files as its manifest states them; those that it shares with others count in each. */
  bytes: number
  metrics: Record<string, number>
}

/** List a job's generations, the newest first. */
export function statusOfGenerations(jobDir: string): GenerationStatus[] {
  const current = currentGeneration(jobDir)?.number
  return listGenerations(jobDir)
    .toReversed()
    .map(generation => {
      const { number, dir } = generation
      const { metadata } = readManifest(dir) ?? {}
      const trainedMs = metadata?.adopted.length ? Number.NaN : Date.parse(String(metadata?.trained_at))
      return {
        generation: number,
        isCurrent: number === current,
        isWhole: isWhole(generation),
        trainedAt: Number.isNaN(trainedMs) ? null : new Date(trainedMs).toISOString(),
        bytes: Object.values(metadata?.sizes ?? {}).reduce((sum, bytes) => sum + bytes, 0),
        metrics: metricsOf(metadata ?? {}),
      }
    })
}

/** Describe the generations of a job for a person, a line each, where there is one to go back to. */
export function describeGenerations(job: string, generations: GenerationStatus[], now: number): string[] {
  if (generations.length < 2) return []
  const current = generations.find(({ isCurrent }) => isCurrent)?.generation ?? Number.POSITIVE_INFINITY
  return generations.map(({ generation, isCurrent, isWhole, trainedAt, bytes, metrics }) => {
    const age = trainedAt
      ? `${formatSeconds(Math.max(0, now - Date.parse(trainedAt)) / 1000)} old`
      : 'not trained here'
    const figures = Object.keys(metrics).length ? `: ${formatMetrics(metrics)}` : ''
    const states = [
      ...(isCurrent ? ['current'] : []),
      ...(generation > current ? ['rolled back from'] : []),
      ...(isWhole ? [] : ['its files have made room']),
    ]
    const state = states.length ? ` (${states.join(', ')})` : ''
    return `${job} generation ${generation}${state}, ${age}, ${formatBytes(bytes)}${figures}`
  })
}
