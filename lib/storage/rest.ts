import type { BigIntStats, Stats } from 'node:fs'
import { TMP, WORK } from '../layout.ts'
import { type Bytes, escapeBytes, type Folder } from '../system/bytes.ts'
import { count, formatBytes } from '../text.ts'
import type { PrunableSet } from './entry.ts'
import { chargeOf, findRoot, type MeasureOptions } from './measure.ts'
import { Belonging } from './naming.ts'
import { PatternsOfNames, patternOf } from './patterns.ts'
import { compileRules, type RuleOf } from './rules.ts'
import { walk } from './walk.ts'

/** So many of the largest are named. */
const NAMED = 3
/** So many kinds are told apart; the rest are no longer worth a word. */
const MOST_KINDS = 4096

/** Why things are still there. */
export type Reasons = {
  /** Sentences about what could not be deleted. */
  faults: Iterable<string>
  /** What was spared, and why. */
  spared?: Map<PrunableSet, string>
}

/** Files of one pattern that stayed for one reason. Of those that no rule names `names` is one. */
type Kind = { pattern: string; why: string; files: number; bytes: number; names: string[] | undefined }

/**
 * Say why nothing is left to prune in a folder: the largest things that stayed, each with its reason, and the line of
 * quotas.json that would help, as the middle of a sentence; empty if there is nothing to say.
 */
export async function describeRest(
  dir: string,
  { keep = [], ...globs }: MeasureOptions,
  { faults, spared = new Map() }: Reasons,
): Promise<string> {
  const said = [...faults]
  const more = said.length > NAMED ? [`and ${said.length - NAMED} more`] : []
  const root = findRoot(dir)
  const why = said.length ? 'could not be deleted' : 'prunable'
  const rest = new Rest(root, await compileRules(root, globs), keep, spared, why)
  await walk<Kind | undefined>(root, undefined, rest).catch(() => {}) // what was seen until then is told
  return [...said.slice(0, NAMED), ...more, ...rest.describe()].map(reason => `${reason}; `).join('')
}

/** Sorts what is in a folder by why it stayed. */
class Rest {
  readonly #root: Bytes
  readonly #belonging: Belonging
  readonly #work: Bytes
  readonly #ruleOf: RuleOf
  readonly #published = new Set<Bytes>()
  readonly #reasons: Map<Bytes, string>
  /** Why what a rule names is there. */
  readonly #why: string
  readonly #kinds = new Map<string, Kind>()
  readonly #patterns = new PatternsOfNames(MOST_KINDS)

  constructor(
    root: Bytes,
    ruleOf: RuleOf,
    keep: Iterable<string | Buffer>,
    spared: Map<PrunableSet, string>,
    why: string,
  ) {
    this.#root = root
    this.#why = why
    this.#belonging = new Belonging(root)
    this.#work = `${root}/${WORK}`
    this.#ruleOf = ruleOf
    this.#reasons = new Map([...spared].map(([{ path }, why]) => [path, why]))
    for (const path of keep) this.#published.add(Buffer.from(path as string).toString('latin1'))
  }

  isExact(): boolean {
    return false
  }

  visit({ path, data: holder }: Folder<Kind | undefined>, name: Bytes, stats: Stats | BigIntStats) {
    const rule =
      stats.isDirectory() || stats.isFile()
        ? this.#ruleOf(path, name, stats.isDirectory() ? 'folder' : 'file')
        : undefined
    const kind = holder ?? this.#kindOf(path, name, rule)
    if (!stats.isDirectory()) {
      kind.files++
      kind.bytes += chargeOf(stats, 0)
    }
    return holder ?? (rule ? kind : undefined)
  }

  describe(): string[] {
    const largest = this.#byCheckpoint()
      .filter(({ bytes }) => bytes > 0)
      .sort((a, b) => b.bytes - a.bytes)
    const named = largest
      .slice(0, NAMED)
      .map(
        ({ pattern, why, files, bytes }) =>
          `${count(files, 'file')} ${pattern} (${formatBytes(bytes)}, ${why})`,
      )
    const unnamed = largest.find(({ names, files }) => names && files > 1)
    const isGlob = unnamed && /^(?:[\w./=*@+,-]|\[0-9\])+$/.test(unnamed.pattern)
    return [
      ...(named.length ? [`left are ${named.join(', ')}`] : []),
      ...(isGlob
        ? [`if they are checkpoints, add "prune": ["${unnamed.pattern}"] to the job in quotas.json`]
        : []),
    ]
  }

  /** Files that no rule names are told by the checkpoint that they are in, which has many kinds of them. */
  #byCheckpoint(): Kind[] {
    const kinds = new Map<string, Kind>()
    for (const kind of this.#kinds.values()) {
      const pattern = kind.names ? this.#patterns.checkpointOf(kind.names) : kind.pattern
      const key = `${kind.why} ${pattern}`
      const { files, bytes } = kinds.get(key) ?? { files: 0, bytes: 0 }
      kinds.set(key, { ...kind, pattern, files: files + kind.files, bytes: bytes + kind.bytes })
    }
    return [...kinds.values()]
  }

  #kindOf(folder: Bytes, name: Bytes, rule: ReturnType<RuleOf>): Kind {
    const path = `${folder}/${name}`
    const isPublished = this.#published.has(path)
    const isTemporary = path.startsWith(`${this.#work}/${TMP}/`)
    const isNamed = isPublished || isTemporary || rule !== undefined || !path.startsWith(`${this.#work}/`)
    const temporary =
      isTemporary && rule === undefined && 'temporary, in /tmp, /var/tmp or /dev/shm of the sandbox'
    const why = isPublished ? 'published' : temporary || this.#whyOf(folder, name, rule, isNamed)
    const below = path.startsWith(`${this.#work}/`) ? this.#work : this.#root
    const names = escapeBytes(path.slice(below.length + 1)).split('/')
    const pattern = patternOf(names)
    const key = this.#kinds.size < MOST_KINDS ? `${why} ${pattern}` : ''
    if (!isNamed) this.#patterns.add(names)
    const kind = this.#kinds.get(key) ?? {
      pattern,
      why,
      files: 0,
      bytes: 0,
      names: isNamed ? undefined : names,
    }
    this.#kinds.set(key, kind)
    return kind
  }

  #whyOf(folder: Bytes, name: Bytes, rule: ReturnType<RuleOf>, isNamed: boolean): string {
    if (rule === 'kept') return 'named by keep'
    if (rule === undefined) return isNamed ? 'not in work/' : 'no rule names them'
    const reason =
      this.#reasons.get(this.#belonging.checkpointOf(folder, name)) ?? this.#reasons.get(`${folder}/${name}`)
    return reason ?? this.#why
  }
}
