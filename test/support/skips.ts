import type { Test } from 'uvu'

/** Every skipped test by name and reason; the runner prints them and counts that none is hidden. */
export const namedSkips: string[] = []

/**
 * `test` when `condition` holds; otherwise a skip that the runner names.
 *
 * @example skipUnless(test, process.getuid?.() === 0, 'needs root')('mounts a volume', async () => { … })
 */
export function skipUnless(test: Test, condition: boolean, reason: string): DefineTest {
  if (condition) return test
  return name => {
    namedSkips.push(`${name} (${reason})`)
    test.skip()
  }
}

type DefineTest = (name: string, body: () => void | Promise<void>) => void
