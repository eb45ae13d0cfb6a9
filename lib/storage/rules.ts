import { ASIDE, CACHE, CANDIDATE, HOME, TMP, WORK } from '../settings/layout.ts'
import { type Bytes, isWithin, PATH_MAX } from '../system/bytes.ts'
import { isStagingName } from './naming.ts'
import { isPointerName } from './pointers.ts'
import { RANK, type Rule } from './rank.ts'

/**
 * Tells which rule there is for a name, if there is any, or that it is kept, whatever else names it; `any` is for a name of
 * which nothing else is known.
 */
export type RuleOf = (folder: Bytes, name: Bytes, kind: Kind) => Rule | 'kept' | undefined
type Kind = 'file' | 'folder' | 'any'

export type Globs = {
  /** Names that may be pruned besides `*.checkpoint` and `*.tmp`; relative to the folder or to its `work/`. */
  prune?: string[]
  /** Names that may not be pruned, whatever else names them; relative as those. */
  keepGlobs?: string[]
  /** Absolute paths of what newer things have taken the place of: goes before any checkpoint. */
  superseded?: string[]
}

/**
 * Below a longer path, four times what a program can name, no rule names anything, and it goes with a folder above it alone:
 * to compare such paths takes time and memory that grow by the square of their depth.
 */
const MAX_PATH_BYTES = 4 * PATH_MAX

/** Names that may be pruned without a glob: a folder `*.tmp` is one that is being written. */
const CHECKPOINT: Rule = { name: '*.checkpoint', rank: RANK.checkpoint }
const TEMPORARY: Rule = { name: '*.tmp', rank: RANK.temporary }
const SET_ASIDE: Rule = { name: ASIDE, rank: RANK.temporary }
const REFUSED: Rule = { name: CANDIDATE, rank: RANK.temporary }
const SUPERSEDED: Rule = { name: 'superseded', rank: RANK.superseded }
/** The folders in `work/` that are not a training's to make. */
export const OURS = [TMP, CACHE, HOME]
/** The rule of what a training was writing when it died, by its name; for one that lives see `liveSinceNs` of a measurement. */
export const LEFTOVER: Rule = { name: 'leftover', rank: RANK.temporary }

/**
 * Make the rules for what is below `root`: `*.checkpoint` and `*.tmp` at any depth, whatever a glob of `prune` matches,
 * and in `work/` caches and what has a name of something half-written; and the folder of a model that was not accepted.
 * `work` and the folders of ours in it never match.
 *
 * @param isLive does a training run? What is half-written may be a checkpoint then, if a glob names it
 */
export async function compileRules(
  root: Bytes,
  { prune, keepGlobs, superseded = [] }: Globs,
  isLive = false,
): Promise<RuleOf> {
  const work = `${root}/${WORK}`
  const aside = `${root}/${ASIDE}`
  const caches = [CACHE, HOME].map(name => `${work}/${name}`)
  const past = new Set(superseded.map(path => Buffer.from(path).toString('latin1')))
  // Most folders are asked about many times in a row.
  let last = { folder: root, isInWork: false }
  const isInWork = (folder: Bytes) => {
    if (folder !== last.folder) last = { folder, isInWork: isWithin(folder, work) }
    return last.isInWork
  }
  const pruneGlobOf = await compileGlobs(prune)
  const keepGlobOf = await compileGlobs(keepGlobs)
  const find = (globOf: typeof pruneGlobOf, folder: Bytes, name: Bytes, kind: Kind) => {
    const path = `${folder}/${name}`
    return (
      globOf &&
      ((isInWork(folder) && globOf(relative(work, path), kind)) || globOf(relative(root, path), kind))
    )
  }
  return (folder, name, kind) => {
    if (isTooDeep(folder)) return undefined
    if (find(keepGlobOf, folder, name, kind)) return 'kept'
    if (past.size && past.has(`${folder}/${name}`)) return SUPERSEDED
    if (folder === aside) return SET_ASIDE
    if (folder === root && name === CANDIDATE && kind !== 'file') return REFUSED
    const byName = ruleByName(name, kind)
    if (byName === TEMPORARY) return byName
    if (folder === root ? name === WORK : folder === work && OURS.includes(name)) return undefined
    if (caches.includes(folder)) return { name: relative(root, folder), rank: RANK.cache }
    const isOutput = isInWork(folder)
    const isHalf = isOutput && isStagingName(name)
    if (isHalf && !isLive) return LEFTOVER
    if (byName) return byName
    if (isOutput && isPointerName(name) && kind !== 'folder') return undefined
    const glob = find(pruneGlobOf, folder, name, kind)
    if (glob !== undefined) return { name: glob, rank: RANK.checkpoint }
    return isHalf ? LEFTOVER : undefined
  }
}

/** Is a folder so deep that nothing in it is pruned by itself? */
export function isTooDeep(folder: Bytes): boolean {
  return folder.length > MAX_PATH_BYTES
}

/** The rule for a name wherever it is. */
function ruleByName(name: Bytes, kind: Kind): Rule | undefined {
  if (name.endsWith('.tmp') && kind !== 'folder') return TEMPORARY
  return name.endsWith('.checkpoint') ? CHECKPOINT : undefined
}

function relative(base: Bytes, path: Bytes): string {
  return Buffer.from(path.slice(base.length + 1), 'latin1').toString()
}

async function compileGlobs(globs: string[] = []) {
  if (!globs.length) return undefined
  const { default: picomatch } = await import('picomatch')
  // The flag makes `**` match a name with a line break.
  const rules = globs.map(glob => ({ glob, matches: picomatch(glob, { dot: true, flags: 's' }) }))
  return (path: string, kind: Kind) =>
    rules.find(({ matches }) => matches(path) || (kind !== 'file' && matches(`${path}/`)))?.glob
}

/**
 * Make the test for what is below a training's output folder: may a name be pruned, by itself or with a folder that it is
 * in? Such a file is a checkpoint or a part of one.
 */
export function checkpointTest(globs: Globs): Promise<(name: string) => boolean> {
  return ruleTest(globs, rule => rule !== undefined && rule !== 'kept')
}

/** Make the test for what is below a training's output folder: is it kept, by itself or with a folder that it is in? */
export function keepTest(globs: Globs): Promise<(name: string) => boolean> {
  return ruleTest(globs, rule => rule === 'kept')
}

async function ruleTest(
  globs: Globs,
  isMeant: (rule: ReturnType<RuleOf>) => boolean,
): Promise<(name: string) => boolean> {
  const ruleOf = await compileRules('/job', globs)
  return name => {
    const parts = Buffer.from(name).toString('latin1').split('/')
    return parts.some((part, index) => {
      const folder = ['/job/work', ...parts.slice(0, index)].join('/')
      return isMeant(ruleOf(folder, part, index === parts.length - 1 ? 'file' : 'folder'))
    })
  }
}
