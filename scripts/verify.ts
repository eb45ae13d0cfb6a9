/** Is what is published what was trained? node --import tsx scripts/verify.ts [core] [dpi] [agent] [--json] */
import { join, resolve } from 'node:path'
import { chooseJobs, placeOptions } from '../lib/command.ts'
import { chooseModelsDir } from '../lib/folders.ts'
import { type Program, readOptions, root } from '../lib/options.ts'
import { readQuotas } from '../lib/quotas.ts'
import { isEntry, runScript } from '../lib/script.ts'
import { escapeText } from '../lib/text.ts'
import { type Verification, verifyPublished } from '../lib/verify.ts'

const options = {
  ...placeOptions,
  json: { type: 'boolean', help: 'what was found as one JSON object on stdout' },
} as const

const program: Program<typeof options> = {
  name: 'scripts/verify.ts',
  summary: 'Check all published files against their manifest: full SHA-256, and the structure of models.',
  positionals: '[core] [dpi] [agent]',
  options,
  example: 'core --models-dir /tmp/models',
  notes: `Exit codes: 0 all is as published, 1 something differs (each is named), 3 cannot read, 64 wrong usage,
78 quotas.json invalid`,
}

/**
 * Verify the chosen jobs.
 *
 * @returns what was found, as lines or as JSON, and whether all is as published; or the text that was asked for with
 * `--help` or `--version`
 * @throws {TrainerError} `usage`, `config`; `storage` if a folder cannot be listed
 */
async function verify(args: string[]): Promise<{ text: string; ok: boolean }> {
  const read = readOptions(args, program)
  if (typeof read === 'string') return { text: read, ok: true }
  const { values, positionals } = read
  const quotas = readQuotas(resolve(values.quotas ?? join(root, 'quotas.json')))
  const modelsDir = chooseModelsDir(values['models-dir'], quotas.modelsDir)
  const found: Record<string, Verification> = {}
  for (const job of chooseJobs(positionals)) {
    found[job] = await verifyPublished(join(modelsDir, job), quotas.jobs[job].models)
  }
  const ok = Object.values(found).every(({ differences }) => !differences.length)
  const text = values.json ? JSON.stringify({ ok, modelsDir, jobs: found }) : describe(modelsDir, found)
  return { text, ok }
}

function describe(modelsDir: string, found: Record<string, Verification>): string {
  const lines = Object.entries(found).flatMap(([job, { verified, differences }]) => [
    ...verified.map(
      ({ path, bytes, sha256 }) => `${job}: ${escapeText(path)} verified (${bytes} bytes, sha256 ${sha256})`,
    ),
    ...differences.map(({ path, reason }) => `${job}: ${escapeText(path)} ${escapeText(reason)}`),
  ])
  const { verified, differences } = total(found)
  const outcome = differences
    ? `NOT as published: ${differences} ${differences === 1 ? 'difference' : 'differences'} in ${modelsDir}`
    : `as published: ${verified} ${verified === 1 ? 'file' : 'files'} in ${modelsDir}`
  return [...lines, outcome].join('\n')
}

function total(found: Record<string, Verification>): { verified: number; differences: number } {
  const sum = (list: 'verified' | 'differences') =>
    Object.values(found).reduce((n, it) => n + it[list].length, 0)
  return { verified: sum('verified'), differences: sum('differences') }
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    const { text, ok } = await verify(process.argv.slice(2))
    process.stdout.write(`${text}\n`)
    return ok ? 0 : 1
  })
}
