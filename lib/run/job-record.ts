import { join } from 'node:path'
import * as v from 'valibot'
import { stateDirOf } from '../settings/layout.ts'
import { replaceFile } from '../system/durable.ts'
import { readPlain, reasonOf } from '../system/plain-file.ts'
import { shorten } from '../text.ts'

const FILE = 'slurm.json'
const MAX_BYTES = 16_384
const MAX_MESSAGE = 1000

/** A site of a fleet, by the folder that its job trains in. */
type Site = { modelsDir: string }

const whole = v.pipe(v.number(), v.integer(), v.minValue(0))
const endSchema = v.object({
  exitCode: whole,
  message: v.string(),
  at: v.string(),
  /** The job that came out so; missing if Slurm has taken none. */
  slurmJob: v.optional(whole),
  /** It was still in the queue then, and may come out otherwise. */
  isQueued: v.optional(v.literal(true)),
})
const recordSchema = v.object({
  jobId: whole,
  submittedAt: v.string(),
  /** Where the site's journal ended then. */
  journal: v.object({ inode: whole, head: v.optional(v.string(), ''), bytes: whole }),
  /** How the site came out last, once somebody has judged it. */
  outcome: v.optional(endSchema),
})

/** How a site's last Slurm job came out, or why Slurm took none. */
export type JobEnd = v.InferOutput<typeof endSchema>

/** The last job that was submitted for a site. */
export type JobRecord = v.InferOutput<typeof recordSchema>

/**
 * Keep it in the site's models folder, so that whoever follows the site later finds it, after a power cut too.
 *
 * @throws {TrainerError} `storage`
 */
export async function writeRecord(site: Site, record: JobRecord): Promise<void> {
  await write(site, record)
}

/**
 * Keep how a site came out beside its last job. A job that is not its last one any more changes nothing.
 *
 * @param slurmJob the job that came out so; undefined if Slurm has taken none
 * @param isQueued is it still in the queue, such as a job that is held?
 * @throws {TrainerError} `storage`
 */
export async function keepOutcome(
  site: Site,
  { exitCode, message }: Pick<JobEnd, 'exitCode' | 'message'>,
  slurmJob?: number,
  isQueued = false,
): Promise<void> {
  const record = readRecord(site)
  if (slurmJob !== undefined && record?.jobId !== slurmJob) return
  const at = new Date().toISOString()
  const outcome = {
    exitCode,
    message: shorten(message, MAX_MESSAGE),
    at,
    slurmJob,
    ...(isQueued && { isQueued }),
  }
  await write(site, { ...record, outcome })
}

/** The site's last job; undefined if there is none, or what is there is no record. */
export function readRecord({ modelsDir }: Site): JobRecord | undefined {
  return read(stateDirOf(modelsDir), recordSchema)
}

/**
 * Read how a site's last Slurm job came out, also where Slurm has taken none.
 *
 * @param stateDir the models folder's `.trainer`
 * @returns undefined if there was none, or nobody has judged it
 */
export function readJobEnd(stateDir: string): JobEnd | undefined {
  return read(stateDir, v.object({ outcome: endSchema }))?.outcome
}

function read<T>(stateDir: string, schema: v.GenericSchema<unknown, T>): T | undefined {
  try {
    const content = v.safeParse(schema, JSON.parse(readPlain(stateDir, FILE, MAX_BYTES)))
    return content.success ? content.output : undefined
  } catch (error) {
    if (!(error instanceof SyntaxError)) reasonOf(error)
    return undefined
  }
}

async function write({ modelsDir }: Site, content: object): Promise<void> {
  await replaceFile(join(stateDirOf(modelsDir), FILE), `${JSON.stringify(content)}\n`)
}
