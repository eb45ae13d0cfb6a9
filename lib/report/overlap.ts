import type { JobHistory, TrainingSpan } from '../history/job-history.ts'
import type { RunHistory } from '../history.ts'

/** A job of a run whose training was started. */
export type Trained = { run: RunHistory; job: JobHistory; training: TrainingSpan }

/** Every training of the runs, in the order of the journal. */
export function trainingsOf(runs: RunHistory[]): Trained[] {
  return runs
    .flatMap(run => run.jobs.flatMap(job => (job.training ? [{ run, job, training: job.training }] : [])))
    .sort((a, b) => a.training.order[0] - b.training.order[0])
}

/**
 * Trainings that began before another had ended, each with that other one.
 *
 * The journal's order decides, not the clock: every event is appended when it happens, so of two trainings at
 * once the events are interleaved, whatever was the time of day. The end of a training whose run was killed is not
 * in the journal; it counts up to its last event, and the kernel's lock kept the next run waiting for the rest.
 */
export function findOverlaps(runs: RunHistory[]): [earlier: Trained, later: Trained][] {
  const overlaps: [Trained, Trained][] = []
  let latest: Trained | undefined
  for (const training of trainingsOf(runs)) {
    if (latest && training.training.order[0] < latest.training.order[1]) overlaps.push([latest, training])
    if (!latest || training.training.order[1] > latest.training.order[1]) latest = training
  }
  return overlaps
}
