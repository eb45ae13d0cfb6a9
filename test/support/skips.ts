import type { OurTest } from './test.ts'

/** Every skipped test by name and reason; the runner prints them and counts that none is hidden. */
export const namedSkips: string[] = []

/**
 * `test` when `condition` holds; otherwise a skip that the runner names.
 *
 * @example skipUnless(test, process.getuid?.() === 0, 'needs root')('mounts a volume', async () => { … })
 */
export function skipUnless(test: OurTest, condition: boolean, reason: string): DefineTest {
  if (condition || !test.isHere) return test
  return name => {
    namedSkips.push(`${name} (${reason})`)
    test.skip()
  }
}

type DefineTest = (name: string, body: () => void | Promise<void>) => void
