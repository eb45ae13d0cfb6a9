/** Bundle and sign a job's published models: node --import tsx scripts/bundle.ts JOB --key FILE [--out FILE] */
import { existsSync, realpathSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { TrainerError } from '../lib/errors.ts'
import { readPrivateKey } from '../lib/models/bundle/signature.ts'
import { writeBundle } from '../lib/models/bundle/write.ts'
import { chooseGeneration } from '../lib/models/rollback.ts'
import { listenForSignals } from '../lib/run/signals.ts'
import { layout } from '../lib/settings/layout.ts'
import { type Program, readOptions } from '../lib/settings/options.ts'
import { chooseOneJob, placeOptions, readPlace } from '../lib/settings/place.ts'
import { isEntry, print, runScript } from '../lib/settings/script.ts'
import { nameCommand } from '../lib/system/start-command.ts'
import { escapeText, formatBytes } from '../lib/text.ts'

const options = {
  key: { type: 'string', value: 'FILE', help: 'the private key that signs: PEM, RSA, 3072 bits or more' },
  out: { type: 'string', value: 'FILE', help: 'the bundle, replaced as a whole (default: JOB.tar.gz)' },
  generation: {
    type: 'string',
    value: 'N',
    help: 'an earlier one, as status lists them',
  },
  ...placeOptions,
  json: { type: 'boolean', help: 'what was bundled as one JSON object on stdout' },
} as const

const program: Program<typeof options> = {
  name: 'scripts/bundle.ts',
  summary: "Bundle a job's published models with their manifest and its signature.",
  positionals: 'JOB',
  options,
  example: 'core --key private.pem',
  notes: `A new pair of keys:
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out private.pem
  openssl pkey -in private.pem -pubout -out public.pem

Exit codes: 0 done, 1 nothing to bundle or not what was published,
3 cannot write, 64 wrong usage or key, 78 quotas.json invalid, 129 SIGHUP,
130 SIGINT, 143 SIGTERM`,
}

/**
 * Bundle one job.
 *
 * @returns what was bundled, as a line or as JSON, or the text that was asked for with `--help` or `--version`
 * @throws {TrainerError} of the options, the key, the models or the disk
 */
async function bundle(args: string[]): Promise<string> {
  const read = readOptions(args, program)
  if (typeof read === 'string') return read
  const { values, positionals } = read
  const job = chooseOneJob(positionals, nameCommand(program.name, 'core', '--key', 'private.pem'))
  if (values.key === undefined) throw new TrainerError('usage', 'Name the private key that signs: --key FILE')
  const { modelsDir, quotasFile } = readPlace(values)
  const out = resolve(values.out ?? `${job}.tar.gz`)

  const key = readPrivateKey(values.key)
  if (existsSync(out) && realpathSync(out) === realpathSync(values.key)) {
    throw new TrainerError('usage', `--out is ${values.out}, expected another file than the key`)
  }

  const { signal, close } = listenForSignals()
  const { jobDir } = layout(modelsDir, job)
  const { generation: number } = values
  const generation = number === undefined ? undefined : chooseGeneration(job, jobDir, number)
  const source = { job, jobDir, generation, modelsDir, quotasFile }
  const files = await writeBundle(source, key, out, signal)
  close()

  const { size: bytes } = statSync(out)
  if (values.json) return JSON.stringify({ bundle: out, job, bytes, files })
  return escapeText(`The bundle of ${files.join(', ')} is in ${out}, ${formatBytes(bytes)}`)
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    print(await bundle(process.argv.slice(2)))
    return 0
  })
}
