import { isNumbered } from './naming.ts'

/** A folder of such a name is a checkpoint, whatever the names in it say. */
const CHECKPOINT = /^(?:checkpoint|chkpt|ckpt|global_?step)[-_=.]?\d/i

/** A number of a name; not that of an ending such as `.h5`. */
const NUMBER = /\d+(?:\.\d+)?(?<!\.[a-z]\d)/g

/** Make a glob of the names of a path: a number is any number. */
export function patternOf(names: string[]): string {
  return names.map(patternOfName).join('/')
}

function patternOfName(name: string): string {
  return name.replace(NUMBER, '*').replace(/^\*$/, '[0-9]*')
}

/** The pattern of each path on the way to a path, from the outermost name on. */
function patternsTo(names: string[]): string[] {
  let pattern = ''
  return names.map((name, index) => (pattern += `${index ? '/' : ''}${patternOfName(name)}`))
}

/** Tells of paths which of their folders are checkpoints, by the numbers that vary in the names of folders. */
export class PatternsOfNames {
  readonly #most: number
  /** The last name of the first path of each pattern, and whether another has followed. */
  readonly #seen = new Map<string, { name: string; varies: boolean }>()

  /** @param most so many patterns are told apart; of others none is found to vary */
  constructor(most: number) {
    this.#most = most
  }

  /** Take the names of a path, from the outermost on. */
  add(names: string[]): void {
    for (const [index, pattern] of patternsTo(names).entries()) {
      const name = names[index]!
      if (!/\d/.test(name)) continue
      const seen = this.#seen.get(pattern)
      if (seen) seen.varies ||= seen.name !== name
      else if (this.#seen.size < this.#most) this.#seen.set(pattern, { name, varies: false })
    }
  }

  /**
   * Make the glob of the checkpoints that a path is one of: of the outermost folder that has a checkpoint's name and a number
   * that varies, else of the path itself if it has such a name, else of the outermost folder with a number that varies.
   */
  checkpointOf(names: string[]): string {
    const folders = names.slice(0, -1)
    const patterns = patternsTo(names)
    const allVary = patterns.map(pattern => this.#seen.get(pattern)?.varies === true)
    const varies = allVary.slice(0, -1)
    const isOwn = isNumbered(names.at(-1)!) && allVary.at(-1)
    const places = [
      folders.findIndex((name, index) => varies[index] && isNumbered(name)),
      folders.findIndex(name => CHECKPOINT.test(name)),
      isOwn ? folders.length : -1,
      varies.indexOf(true),
    ]
    const place = places.find(it => it >= 0) ?? folders.length
    return patterns[place]!
  }
}
