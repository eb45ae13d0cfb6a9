/** Is what is published, or in a bundle, what was trained? node --import tsx scripts/verify.ts [JOB … | --bundle FILE --key FILE] */
import { resolve } from 'node:path'
import { TrainerError } from '../lib/errors.ts'
import { checkBundle } from '../lib/models/bundle/check.ts'
import { readPublicKey } from '../lib/models/bundle/signature.ts'
import { type Verification, verifyPublished } from '../lib/models/verify.ts'
import type { JobName } from '../lib/quotas.ts'
import { openModelsDir } from '../lib/settings/folders.ts'
import { layout } from '../lib/settings/layout.ts'
import { type Program, readOptions, type Values } from '../lib/settings/options.ts'
import { chooseJobs, placeOptions, readPlace } from '../lib/settings/place.ts'
import { isEntry, print, runScript } from '../lib/settings/script.ts'
import { count, escapeText } from '../lib/text.ts'

const options = {
  ...placeOptions,
  bundle: { type: 'string', value: 'FILE', help: 'check this bundle instead; nothing of it is extracted' },
  key: { type: 'string', value: 'FILE', help: 'the public key that the bundle is checked with' },
  json: { type: 'boolean', help: 'what was found as one JSON object on stdout' },
} as const

const program: Program<typeof options> = {
  name: 'scripts/verify.ts',
  summary: 'Check published files, or a signed bundle of them, against their manifest.',
  positionals: '[core] [dpi] [agent]',
  options,
  example: 'core --models-dir /tmp/models',
  notes: `Exit codes: 0 all is as published, 1 something differs (each is named),
3 cannot read, 64 wrong usage or key, 78 quotas.json invalid`,
}

/**
 * Verify the chosen jobs, or a bundle.
 *
 * @returns what was found, as lines or as JSON, and whether all is as published; or the text that was asked for with
 * `--help` or `--version`
 * @throws {TrainerError} `usage`, `config`; `storage` if there is no models folder, or a folder cannot be listed
 */
async function verify(args: string[]): Promise<{ text: string; ok: boolean }> {
  const read = readOptions(args, program)
  if (typeof read === 'string') return { text: read, ok: true }
  const { values, positionals } = read
  if (values.bundle !== undefined || values.key !== undefined) return verifyBundle(values, positionals)
  const { quotas, ...place } = readPlace(values)
  const modelsDir = openModelsDir(place.modelsDir, true, true)
  const found: Found = {}
  for (const job of chooseJobs(positionals)) {
    found[job] = await verifyPublished(layout(modelsDir, job).jobDir, quotas.jobs[job].models)
  }
  const ok = Object.values(found).every(({ differences }) => !differences.length)
  const text = values.json ? JSON.stringify({ ok, modelsDir, jobs: found }) : describeJobs(modelsDir, found)
  return { text, ok }
}

async function verifyBundle(
  { bundle, key, json }: Values<typeof options>,
  jobs: string[],
): Promise<{ text: string; ok: boolean }> {
  if (bundle === undefined || key === undefined || jobs.length) {
    throw new TrainerError('usage', 'A bundle is checked by --bundle FILE with --key FILE, and without a job')
  }
  const file = resolve(bundle)
  const found = await checkBundle(file, readPublicKey(key))
  const ok = !found.differences.length
  const text = json ? JSON.stringify({ ok, bundle: file, ...found }) : describeBundle(file, found)
  return { text, ok }
}

/** The findings, by job. */
type Found = Partial<Record<JobName, Verification>>

function describeJobs(modelsDir: string, found: Found): string {
  const lines = Object.entries(found).flatMap(([job, verification]) => linesOf(job, verification))
  const total = (list: keyof Verification) =>
    Object.values(found).reduce((sum, verification) => sum + verification[list].length, 0)
  const outcome = total('differences')
    ? `NOT as published: ${count(total('differences'), 'difference')}`
    : `as published: ${count(total('verified'), 'file')}`
  const adopted = total('adopted') ? `; adopted, not trained here: ${count(total('adopted'), 'file')}` : ''
  return [...lines, `${outcome} in ${escapeText(modelsDir)}${adopted}`].join('\n')
}

function describeBundle(file: string, verification: Verification): string {
  const { verified, differences } = verification
  const outcome = differences.length ? 'NOT verified' : `verified: ${count(verified.length, 'file')} in`
  return [...linesOf('bundle', verification), `${outcome} ${escapeText(file)}`].join('\n')
}

function linesOf(label: string, { verified, adopted, differences }: Verification): string[] {
  return [
    ...verified.map(({ path, bytes, sha256 }) => [path, `verified (${bytes} bytes, sha256 ${sha256})`]),
    ...adopted.map(path => [path, 'was adopted, not trained here']),
    ...differences.map(({ path, reason }) => [path, reason]),
  ].map(([path, finding]) => `${label}: ${escapeText(path!)} ${escapeText(finding!)}`)
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    const { text, ok } = await verify(process.argv.slice(2))
    print(text)
    return ok ? 0 : 1
  })
}
