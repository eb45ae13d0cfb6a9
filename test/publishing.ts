import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { judgeModel } from '../lib/judge.ts'
import { type Published, publish, type TrainingFacts } from '../lib/publish.ts'

/** A training as the manifest tells of it. */
export const facts: TrainingFacts = {
  globs: ['**/*.onnx'],
  trainedAt: new Date('2026-01-02T03:04:05Z'),
  seconds: 12.5,
  reported: {},
}

/** Put files into a job's `work/`, as a trainer does, and publish the models among them. */
export async function trainAndPublish(
  jobDir: string,
  files: Record<string, Buffer | string>,
  {
    models = Object.keys(files).filter(name => name.endsWith('.onnx')),
    ...known
  }: Partial<TrainingFacts> & { models?: string[] } = {},
): Promise<Published[]> {
  const work = join(jobDir, 'work')
  writeFiles(work, files)
  const judged = models.map(name => judgeModel(work, name))
  return publish(jobDir, 'core', judged, { ...facts, ...known })
}

/** Write files below a folder. */
export function writeFiles(folder: string, files: Record<string, Buffer | string>): void {
  mkdirSync(folder, { recursive: true })
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
}

export function sha256Of(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('hex')
}

/** What a promise was rejected with. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('was not rejected')
}
