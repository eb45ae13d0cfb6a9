/**
 * Say that a checkpoint had to go to which something points, and what follows if it was the best one.
 *
 * @param pointer the path of a link or file that names it; the beginning of its own, if its name says so
 */
export function describePointedTo(path: string, pointer: string, isBest = false): string {
  const isByName = path.startsWith(pointer)
  if (!isBest) {
    const what = isByName ? 'the last one, by its name' : `which ${pointer} names`
    return `pruned ${path}, ${what}: nothing else was left to prune`
  }
  return (
    `pruned ${path}, the best one by ${isByName ? 'its name' : pointer}: nothing else was left to prune. A training that loads ` +
    'it at its end fails, or exports another one; raise maxDiskMb to hold the best, the newest and one that is being written'
  )
}
