import { join } from 'node:path'
import * as v from 'valibot'
import { stateDirOf } from '../layout.ts'
import { replaceFile } from '../system/durable.ts'
import { readPlain, reasonOf } from '../system/plain-file.ts'
import type { Site } from './fleet-file.ts'

const FILE = 'slurm.json'
const MAX_BYTES = 4096

const whole = v.pipe(v.number(), v.integer(), v.minValue(0))
const recordSchema = v.object({
  jobId: whole,
  submittedAt: v.string(),
  /** Where the site's journal ended then. */
  journal: v.object({ inode: whole, bytes: whole }),
})

/** The last job that was submitted for a site. */
export type JobRecord = v.InferOutput<typeof recordSchema>

/**
 * Keep it in the site's models folder, so that whoever follows the site later finds it, after a power cut too.
 *
 * @throws {TrainerError} `storage`
 */
export async function writeRecord({ modelsDir }: Site, record: JobRecord): Promise<void> {
  await replaceFile(join(stateDirOf(modelsDir), FILE), `${JSON.stringify(record)}\n`)
}

/** The site's last job; undefined if there is none, or what is there is no record. */
export function readRecord({ modelsDir }: Site): JobRecord | undefined {
  try {
    const content: unknown = JSON.parse(readPlain(stateDirOf(modelsDir), FILE, MAX_BYTES))
    const record = v.safeParse(recordSchema, content)
    return record.success ? record.output : undefined
  } catch (error) {
    if (!(error instanceof SyntaxError)) reasonOf(error)
    return undefined
  }
}
