import { dirname, resolve } from 'node:path'
import { type Quotas, quotasSchema } from '../quotas.ts'
import { readJsonFile } from './json-file.ts'

/**
 * Read and validate a quotas file.
 *
 * @throws {TrainerError} `config`: unreadable, not JSON, or a value out of place; every fault has a line of
 * its own that names the key, what it was and what was expected.
 */
export function readQuotas(file: string): Quotas {
  const quotas = readJsonFile(file, quotasSchema, subject)
  const dir = dirname(resolve(file))
  const { modelsDir, ...rest } = quotas
  return modelsDir === undefined ? { ...rest, dir } : { ...rest, dir, modelsDir: resolve(dir, modelsDir) }
}

const subject = {
  name: 'the quotas file',
  remedy: 'name one that this user can read: --quotas FILE',
  expected: { maxDiskMb: 'a whole number of at least 1', train: 'a command as a list of strings' },
}
