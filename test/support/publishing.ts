import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { adopt } from '../../lib/models/adopt.ts'
import { judgeModel } from '../../lib/models/judge.ts'
import { type Published, type PublishOptions, publish } from '../../lib/models/publish.ts'
import { recover } from '../../lib/models/recovery.ts'
import type { TrainingFacts } from '../../lib/models/stage.ts'
import { checkPublished } from '../../lib/models.ts'
import { programOf } from './places.ts'

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
    options = {},
    ...known
  }: Partial<TrainingFacts> & { models?: string[]; options?: PublishOptions } = {},
): Promise<Published[]> {
  const work = join(jobDir, 'work')
  writeFiles(work, files)
  const judged = await Promise.all(models.map(name => judgeModel(work, name)))
  return publish(jobDir, 'core', judged, { ...facts, ...known }, options)
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

/** Return the error that a promise was rejected with. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('was not rejected')
}

/** Bytes that this process has read by system calls so far. */
export function bytesRead(): number {
  return Number(/^rchar: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))![1])
}

/** checkPublished() in a process of its own, which a FIFO cannot hold up for ever, and which strace can watch. */
export function checkApart(
  jobDir: string,
  globs: string[],
  prefix: string[] = [],
): { status: number | null; stdout: string } {
  const publisher = programOf('test/support/publisher.ts')
  const argv = [...prefix, process.execPath, ...publisher, 'check', jobDir, ...globs]
  return spawnSync(argv[0]!, argv.slice(1), { encoding: 'utf8', timeout: 20_000 })
}

/** The manifest as a consumer reads it. */
export function readManifest(jobDir: string): {
  metadata: Record<string, unknown>
  files: Record<string, string>
} {
  return JSON.parse(readFileSync(join(jobDir, 'manifest.json'), 'utf8'))
}

/** Published files as they were before there were generations: beside each other, with their manifest. */
export function publishFlatFiles(
  jobDir: string,
  files: Record<string, Buffer | string>,
  globs = facts.globs,
): void {
  writeFiles(jobDir, files)
  const names = Object.keys(files)
  const stats = names.map(name => [name, statSync(join(jobDir, name), { bigint: true })] as const)
  const metadata = {
    name: 'core',
    trained_at: '2026-01-02T03:04:05.000Z',
    performance_metrics: { auc: 0.9 },
    models: names.filter(name => !name.endsWith('.bin')),
    model_globs: globs,
    sizes: Object.fromEntries(stats.map(([name, { size }]) => [name, Number(size)])),
    mtimes_ns: Object.fromEntries(stats.map(([name, { mtimeNs }]) => [name, String(mtimeNs)])),
    superseded: [],
    adopted: [],
  }
  const hashes = Object.fromEntries(Object.entries(files).map(([name, content]) => [name, sha256Of(content)]))
  writeFileSync(join(jobDir, 'manifest.json'), JSON.stringify({ metadata, files: hashes }))
}

/** Do with a job's folder what the day-1 check does. */
export async function startAgain(
  jobDir: string,
  globs = facts.globs,
  keepGenerations = 1,
): Promise<string[]> {
  const notes = await recover(jobDir, keepGenerations)
  const { adopt: models } = await checkPublished(jobDir, globs)
  if (models.length) await adopt(jobDir, 'core', models, globs)
  return notes
}

/** Names of all files below a folder, in order, but for those of generations. */
export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(name => !/^(generations|current)(\/|$)/.test(name))
    .filter(name => !statSync(join(folder, name)).isDirectory())
    .sort()
}

/** Everything outside `work/` and generations: names and content. */

export function snapshot(jobDir: string): [name: string, content: string][] {
  return filesBelow(jobDir)
    .filter(name => !name.startsWith('work/'))
    .map(name => [name, readFileSync(join(jobDir, name), 'latin1')])
}
