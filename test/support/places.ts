import { join } from 'node:path'

/** The folder of the program under test: of most test files it is a copy of the project, translated to JavaScript. */
export const root = join(import.meta.dirname, '../..')

const isTranslated = import.meta.filename.endsWith('.js')

/** The arguments that Node.js needs to import a file of the program. */
export const loader = isTranslated ? [] : ['--import', 'tsx']

/** Does this run of the tests go through every point of its sweeps, rather than through a sample of them? */
export const isSweep = process.env.RANSOMEYE_SWEEP === 'whole'

/** Does this run of the tests boot machines? Then it does nothing else. */
export const bootsMachines = process.env.RANSOMEYE_BOOT === 'yes'

/** The folder of a virtual environment of Python with frameworks; without it their tests are skipped. */
export const frameworks = process.env.RANSOMEYE_FRAMEWORKS

/** The time limit of one test, here and in test/run.ts. */
export const testLimitMs = (isSweep || bootsMachines ? 20 : 1) * 60_000

/** The arguments by which Node.js runs a file of the program: in a translated copy plain JavaScript, else by tsx. */
export function programOf(script: string): string[] {
  return [...loader, moduleOf(script)]
}

/** A file of the program as this process would import it. */
export function moduleOf(script: string): string {
  return join(root, isTranslated ? script.replace(/\.ts$/, '.js') : script)
}
