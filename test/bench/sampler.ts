/**
 * Watch folders from outside, as fast as it goes: node --import tsx test/bench/sampler.ts DIR …
 * When stdin ends it looks once more, and prints the most charged bytes that were in them together at any look.
 */
import { lstatSync, readdirSync, statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { isErrno } from '../../lib/errors.ts'

let isOver = false
let peakBytes = 0

process.stdin.on('end', () => (isOver = true)).resume()
process.stdout.write('ready\n')
for (let isLast = false; !isLast; ) {
  isLast = isOver
  const usedBytes = process.argv.slice(2).reduce((sum, dir) => sum + Math.max(walk(dir), account(dir)), 0)
  peakBytes = Math.max(peakBytes, usedBytes)
  await nextTurn()
}
process.stdout.write(`${peakBytes}\n`)

function walk(path: string): number {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (!stats) return 0
  const blockBytes = 512 * stats.blocks
  if (!stats.isDirectory()) return Math.max(stats.size, blockBytes)
  return list(path).reduce((sum, name) => sum + walk(`${path}/${name}`), blockBytes)
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}

/** Ask the kernel about a folder that is a filesystem of its own: it knows more than any walk. */
function account(dir: string): number {
  const stats = lstatSync(dir, { throwIfNoEntry: false })
  if (!stats || stats.dev === lstatSync(dirname(dir)).dev) return 0
  const { blocks, bfree, bsize } = statfsSync(dir)
  return (blocks - bfree) * bsize
}
