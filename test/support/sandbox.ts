import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { bootsMachines, isSweep } from './places.ts'

export type Sandbox = AsyncDisposable & { dir: string; path: (...names: string[]) => string }

/**
 * A folder of its own under the temporary folder, gone at the end of the test's scope. `files` maps a path to
 * a size in bytes or to the content.
 *
 * @example await using box = await sandbox({ 'core/a.checkpoint': 5000 })
 */
export async function sandbox(files: Record<string, number | string | Buffer> = {}): Promise<Sandbox> {
  const dir = mkdtempSync(join(tmpdir(), 'ransomeye-test-'))
  for (const [name, content] of Object.entries(files)) {
    const file = join(dir, name)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, typeof content === 'number' ? Buffer.alloc(content, 1) : content)
  }
  return {
    dir,
    path: (...names) => join(dir, ...names),
    async [Symbol.asyncDispose]() {
      rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 })
    },
  }
}

/** In a sweep there are whole clusters and machines beside it, and services that get what these leave. */
const DEADLINE_MS = isSweep || bootsMachines ? 120_000 : 20_000

/**
 * Poll until `condition` gives something truthy, and return it; throw after `deadlineMs`. A condition that looks at every
 * process is polled less often, so that what it waits for has the processor.
 */
export async function until<T>(
  what: string,
  condition: () => T | Promise<T>,
  deadlineMs = DEADLINE_MS,
): Promise<NonNullable<T>> {
  const end = performance.now() + deadlineMs
  for (;;) {
    const startedMs = performance.now()
    const value = await condition()
    if (value) return value
    if (performance.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`)
    await delay(Math.min(Math.max(20, 9 * (performance.now() - startedMs)), 100))
  }
}
