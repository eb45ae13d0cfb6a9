import { once } from 'node:events'
import { Worker } from 'node:worker_threads'

/** Others need the processor too. */
const EVERY_MS = 10

/** Runs in a thread of its own, with nothing of the program's: the blocks of each inode, or its size where that is more. */
const watcher = `
const { lstatSync, readdirSync } = require('node:fs')
const { parentPort, workerData } = require('node:worker_threads')
const tryTo = read => { try { return read() } catch { return undefined } }
let peakBytes = 0
let samples = 0
const count = () => {
  const seen = new Set()
  const walk = path => {
    const stats = tryTo(() => lstatSync(path))
    if (!stats || seen.has(stats.ino)) return 0
    seen.add(stats.ino)
    const own = Math.max(512 * stats.blocks, stats.isFile() ? stats.size : 0)
    const names = stats.isDirectory() ? tryTo(() => readdirSync(path)) ?? [] : []
    return names.reduce((sum, name) => sum + walk(path + '/' + name), own)
  }
  return walk(workerData.dir)
}
const look = () => {
  // One walk may see what was never there at once: files that go while it is held up, and those that come after.
  const bytes = count()
  if (bytes > peakBytes) peakBytes = Math.max(peakBytes, Math.min(bytes, count()))
  samples++
}
const timer = setInterval(look, workerData.everyMs)
parentPort.once('message', () => {
  clearInterval(timer)
  look()
  parentPort.postMessage({ peakBytes, samples })
})`

/**
 * Watch a folder's charged bytes from outside, by other means than the program's.
 *
 * @returns a function that stops it and gives the highest usage seen, and how often it looked
 */
export function sampleUsage(dir: string): () => Promise<{ peakBytes: number; samples: number }> {
  const worker = new Worker(watcher, { eval: true, workerData: { dir, everyMs: EVERY_MS } })
  return async () => {
    worker.postMessage('stop')
    const [figures] = await once(worker, 'message')
    await worker.terminate()
    return figures
  }
}
