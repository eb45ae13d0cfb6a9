import * as v from 'valibot'
import { readPlain, reasonOf } from '../system/plain-file.ts'

const MAX_BYTES = 16_384

const endSchema = v.object({
  outcome: v.object({
    exitCode: v.number(),
    message: v.string(),
    at: v.string(),
    slurmJob: v.optional(v.number()),
  }),
})

/** How a site's last Slurm job came out, or why Slurm took none. */
export type JobEnd = v.InferOutput<typeof endSchema>['outcome']

/**
 * Read how a site's last Slurm job came out, as its follower has kept it (lib/fleet/job-record.ts).
 *
 * @param stateDir the models folder's `.trainer`
 * @returns undefined if there was none, or nobody has judged it
 */
export function readJobEnd(stateDir: string): JobEnd | undefined {
  try {
    const end = v.safeParse(endSchema, JSON.parse(readPlain(stateDir, 'slurm.json', MAX_BYTES)))
    return end.success ? end.output.outcome : undefined
  } catch (error) {
    if (!(error instanceof SyntaxError)) reasonOf(error)
    return undefined
  }
}
