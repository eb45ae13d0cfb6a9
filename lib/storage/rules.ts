import type { Bytes } from '../system/bytes.ts'

/** Tells which rule allows a name to be pruned, if any does; `any` is for a name of which nothing else is known. */
export type RuleOf = (folder: Bytes, name: Bytes, kind: 'file' | 'folder' | 'any') => string | undefined

/** The endings of files that may be pruned without a glob. */
const PRUNABLE_ENDING = /\.(checkpoint|tmp)$/

/**
 * Make the rules for what is below `root`: files `*.checkpoint` and `*.tmp` at any depth, and whatever matches one
 * of `globs`, which are relative to `root` and to its `work/`. The folders `work` and `work/tmp` never match.
 */
export async function compileRules(root: Bytes, globs: string[]): Promise<RuleOf> {
  const matches = globs.length ? await compileGlobs(globs) : undefined
  const work = `${root}/work`
  const fixed = [work, `${work}/tmp`]
  return (folder, name, kind) => {
    const ending = kind === 'folder' ? null : PRUNABLE_ENDING.exec(name)
    if (ending) return `*${ending[0]}`
    if (!matches) return undefined
    const path = `${folder}/${name}`
    if (fixed.includes(path)) return undefined
    const below = (base: Bytes) => Buffer.from(path.slice(base.length + 1), 'latin1').toString()
    return (path.startsWith(`${work}/`) && matches(below(work), kind)) || matches(below(root), kind)
  }
}

async function compileGlobs(globs: string[]) {
  const { default: picomatch } = await import('picomatch')
  // The flag makes `**` match a name with a line break.
  const rules = globs.map(glob => ({ glob, matches: picomatch(glob, { dot: true, flags: 's' }) }))
  return (path: string, kind: 'file' | 'folder' | 'any') =>
    rules.find(({ matches }) => matches(path) || (kind !== 'file' && matches(`${path}/`)))?.glob
}

/**
 * Make the test for what is below a training's output folder: may a name be pruned, by itself or with a folder that it is
 * in? Such a file is a checkpoint or a part of one.
 */
export async function checkpointTest(globs: string[]): Promise<(name: string) => boolean> {
  const ruleOf = await compileRules('/job', globs)
  return name => {
    const parts = Buffer.from(name).toString('latin1').split('/')
    return parts.some((part, index) => {
      const folder = ['/job/work', ...parts.slice(0, index)].join('/')
      return ruleOf(folder, part, index === parts.length - 1 ? 'file' : 'folder') !== undefined
    })
  }
}
