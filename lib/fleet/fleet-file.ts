import { realpathSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import * as v from 'valibot'
import { isErrno, TrainerError } from '../errors.ts'
import { readJsonFile } from '../settings/json-file.ts'
import { didYouMean } from '../settings/options.ts'
import { root } from '../system/start-command.ts'

const positive = v.pipe(
  v.number('a whole number'),
  v.integer('a whole number'),
  v.minValue(1, 'a whole number of at least 1'),
)
/** Refuses control characters: they would be obeyed in a script, a job's name or a terminal. */
const plain = /^[^\0-\x1f\x7f-\x9f\u2028\u2029]+$/
const word = v.pipe(v.string('a string'), v.regex(plain, 'a string that is not empty, on one line'))
const path = v.pipe(v.string('a path'), v.regex(plain, 'a path on one line'))

/** Options by which a submission would not be one job that trains one site, and is known by its id. */
const refused = ['array', 'parsable', 'test-only', 'wait', 'wait-all-nodes', 'wrap']
const option = v.pipe(
  v.string('a string'),
  v.regex(/^-[^\0-\x1f\x7f-\x9f\u2028\u2029]+$/, 'an option of sbatch, such as "--constraint=ssd"'),
  v.check(
    it => !isRefused(it),
    `an option other than ${refused.map(name => `--${name}`).join(', ')}: each site is one job of its own`,
  ),
)

function isRefused(option: string): boolean {
  if (/^-[aW]/.test(option)) return true
  const name = /^--([\w-]{2,})/.exec(option)?.[1]
  return name !== undefined && refused.some(it => it.startsWith(name))
}

const slurmObject = v.strictObject(
  {
    partition: v.optional(word),
    account: v.optional(word),
    qos: v.optional(word),
    gres: v.optional(word, 'trainer:1'),
    licenses: v.optional(word),
    timeMinutes: v.optional(positive),
    options: v.optional(v.array(option, 'a list of options of sbatch'), []),
  },
  'an object',
)

const siteObject = v.strictObject({ modelsDir: path, quotas: path }, 'an object')

/** The form of fleet.json; lib/fleet/fleet.schema.json is generated from it (scripts/schema.ts). */
export const fleetSchema = v.strictObject(
  {
    $schema: v.optional(v.string('a string')),
    slurm: v.optional(slurmObject, {}),
    project: v.optional(path),
    node: v.optional(path),
    scratch: v.optional(
      v.pipe(
        v.string('an absolute path'),
        v.regex(/^\/[^\0-\x1f\x7f-\x9f\u2028\u2029]*$/, 'an absolute path'),
      ),
    ),
    metrics: v.optional(path),
    sites: v.pipe(
      v.record(
        v.pipe(
          v.string(),
          v.regex(
            /^(?!-)[^\0-\x1f\x7f-\x9f\u2028\u2029]{1,200}$/,
            'a name on one line that begins with no dash',
          ),
        ),
        siteObject,
        'an object of sites',
      ),
      v.check(sites => Object.keys(sites).length > 0, 'at least one site'),
    ),
  },
  'an object',
)

/** One site: its models folder and its quotas, absolute. */
export type Site = { name: string; modelsDir: string; quotasFile: string }

/** fleet.json, validated; all paths are absolute. */
export type Fleet = {
  file: string
  /** How its jobs are submitted. */
  slurm: v.InferOutput<typeof slurmObject>
  /** This project's folder, as the nodes see it. */
  project: string
  /** Node.js, as the nodes see it. */
  node: string
  /** A folder of each node's own, in which the trainings work. */
  scratch: string | undefined
  /** Where the sites are counted by state, for Prometheus. */
  metrics: string | undefined
  /** The sites that are chosen. */
  sites: Site[]
  /** Are those all that the file has? */
  isWhole: boolean
}

const subject = {
  name: 'the fleet file',
  remedy: 'name one that this user can read',
  expected: {
    sites: 'an object of sites',
    modelsDir: 'a path',
    quotas: 'a path',
  },
}

/**
 * Read and validate a fleet file. Its relative paths are below its own folder.
 *
 * @param names the sites to choose; none chosen means all
 * @throws {TrainerError} `config` for the file, also when two sites have one models folder, or one inside another's; `usage` for
 * an unknown site
 */
export function readFleet(file: string, names: string[] = []): Fleet {
  const { slurm, project, node, scratch, metrics, sites } = readJsonFile(file, fleetSchema, subject)
  const dir = dirname(resolve(file))
  const all = Object.entries(sites).map(([name, { modelsDir, quotas }]) => ({
    name,
    modelsDir: resolve(dir, modelsDir),
    quotasFile: resolve(dir, quotas),
  }))
  refuseSharedFolders(file, all)
  const unknown = names.find(name => !Object.hasOwn(sites, name))
  if (unknown !== undefined) {
    const remedy = didYouMean(unknown, Object.keys(sites))
    throw new TrainerError('usage', `${file} has no site "${unknown}"${remedy}`)
  }
  const chosen = all.filter(({ name }) => !names.length || names.includes(name))
  return {
    file: resolve(file),
    slurm,
    project: project === undefined ? root : resolve(dir, project),
    node: node === undefined ? process.execPath : resolve(dir, node),
    scratch,
    metrics: metrics === undefined ? undefined : resolve(dir, metrics),
    sites: chosen,
    isWhole: chosen.length === all.length,
  }
}

function refuseSharedFolders(file: string, sites: Site[]): void {
  const owners = new Map<string, string>()
  for (const { name, modelsDir } of sites) {
    const folder = realFolder(modelsDir)
    const other = owners.get(folder)
    if (other !== undefined) {
      const message = `sites.${other} and sites.${name} have one models folder, ${folder}; give each site its own`
      throw new TrainerError('config', `${file}: ${message}`)
    }
    owners.set(folder, name)
  }
  for (const [folder, name] of owners) {
    for (let outer = dirname(folder); outer !== dirname(outer); outer = dirname(outer)) {
      const other = owners.get(outer)
      if (other === undefined) continue
      const message = `the models folder of sites.${name}, ${folder}, is inside that of sites.${other}; give each site its own`
      throw new TrainerError('config', `${file}: ${message}`)
    }
  }
}

/** Where a folder that need not be there yet is, or will be: its links are resolved as far as they are there. */
function realFolder(path: string): string {
  try {
    return realpathSync(path)
  } catch (error) {
    if (!isErrno(error, 'ENOENT') || dirname(path) === path) return path
    return join(realFolder(dirname(path)), basename(path))
  }
}
