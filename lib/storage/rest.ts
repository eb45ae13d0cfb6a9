import type { BigIntStats, Stats } from 'node:fs'
import { TMP, WORK } from '../settings/layout.ts'
import { type Bytes, escapeBytes, type Folder } from '../system/bytes.ts'
import { Slice } from '../system/slice.ts'
import { count, formatBytes, shorten } from '../text.ts'
import { NO_OVERHEAD } from './capacity.ts'
import type { Entry, PrunableSet } from './entry.ts'
import { chargeOf, findRoot, type MeasureOptions, UNNAMED } from './measure.ts'
import { Belonging } from './naming.ts'
import { PatternsOfNames, patternOf } from './patterns.ts'
import { compileRules, type RuleOf } from './rules.ts'
import { walk } from './walk.ts'

/** So many of the largest are named. */
const NAMED = 3
/** So many kinds are told apart; the rest are no longer worth a word. */
const MOST_KINDS = 4096
/** An entry that is deeper is told with the folder that it is in. */
const MOST_LEVELS = 32
/** A longer pattern is shown in part, and proposed to nobody. */
const MOST_CHARACTERS = 200
/** The words are worth no more time: a training has ended, and its run still has the lock. */
const MOST_MS = 500

/** Why things are still there. */
export type Reasons = {
  /** Sentences about what could not be deleted. */
  faults: Iterable<string>
  /** The spared entries, and why. */
  spared?: Map<PrunableSet, string>
  /** What is deleted by now: it is told as the others are. */
  gone?: Entry[]
}

/** Files of one pattern that stayed for one reason. Of those that no rule names `names` is one. */
type Kind = { pattern: string; why: string; files: number; bytes: number; names: string[] | undefined }

/**
 * Say why nothing is left to prune in a folder: the largest things that stayed, each with its reason, and the line of
 * quotas.json that would help, as the middle of a sentence; empty if there is nothing to say. What is not seen within half a second,
 * or before the `signal`, is not told.
 */
export async function describeRest(
  dir: string,
  { keep = [], signal, ...globs }: MeasureOptions,
  { faults, spared = new Map(), gone = [] }: Reasons,
): Promise<string> {
  const said = [...faults]
  const more = said.length > NAMED ? [`and ${said.length - NAMED} more`] : []
  const root = findRoot(dir)
  const why = said.length ? 'could not be deleted' : 'prunable'
  const rest = new Rest(root, await compileRules(root, globs), keep, spared, why)
  for (const entry of gone) rest.add(entry)
  const late = AbortSignal.timeout(MOST_MS)
  const over = signal ? AbortSignal.any([signal, late]) : late
  const isWhole = await walk<Place>(root, { depth: 0 }, rest, over).then(
    () => true,
    () => false, // what was seen until then is told
  )
  return [...said.slice(0, NAMED), ...more, ...(await rest.describe(isWhole, over))]
    .map(reason => `${reason}; `)
    .join('')
}

/** A folder of the walk: how deep it is, and what everything in it is told with, if that is one. */
type Place = { depth: number; kind?: Kind }

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

  visit({ path, data: holder }: Folder<Place>, name: Bytes, stats: Stats | BigIntStats): Place {
    const isFolder = stats.isDirectory()
    const rule =
      !holder.kind && (isFolder || stats.isFile())
        ? this.#ruleOf(path, name, isFolder ? 'folder' : 'file')
        : undefined
    const kind = holder.kind ?? this.#kindOf(path, name, rule)
    if (!isFolder) {
      kind.files++
      kind.bytes += chargeOf(stats, NO_OVERHEAD)
    }
    if (holder.kind) return holder
    const depth = holder.depth + 1
    return rule || depth === MOST_LEVELS ? { depth, kind } : { depth }
  }

  add({ folder, name, rule, rank, bytes, isFolder, ownInodes }: Entry): void {
    const kind = this.#kindOf(folder, name, rule === UNNAMED.name ? undefined : { name: rule, rank })
    kind.files += isFolder ? ownInodes - 1 : 1
    kind.bytes += bytes
  }

  /** @param isWhole has everything been seen? */
  async describe(isWhole: boolean, over: AbortSignal): Promise<string[]> {
    const largest = (await this.#byCheckpoint(over))
      .filter(({ bytes }) => bytes > 0)
      .sort((a, b) => b.bytes - a.bytes)
    const named = largest
      .slice(0, NAMED)
      .map(
        ({ pattern, why, files, bytes }) =>
          `${count(files, 'file')} ${shorten(pattern, MOST_CHARACTERS)} (${formatBytes(bytes)}, ${why})`,
      )
    const unnamed = largest.find(({ names, files }) => names && files > 1)
    const isGlob =
      unnamed &&
      unnamed.pattern.length <= MOST_CHARACTERS &&
      /^(?:[\w./=*@+,-]|\[0-9\])+$/.test(unnamed.pattern)
    return [
      ...(named.length ? [`left are ${isWhole ? '' : 'at least '}${named.join(', ')}`] : []),
      ...(isGlob
        ? [`if they are checkpoints, add "prune": ["${unnamed.pattern}"] to the job in quotas.json`]
        : []),
    ]
  }

  /** Files that no rule names are told by the checkpoint that they are in, which has many kinds of them. */
  async #byCheckpoint(over: AbortSignal): Promise<Kind[]> {
    const kinds = new Map<string, Kind>()
    const slice = new Slice()
    for (const kind of this.#kinds.values()) {
      if (slice.isOver()) await slice.next()
      const pattern = kind.names && !over.aborted ? this.#patterns.checkpointOf(kind.names) : kind.pattern
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
