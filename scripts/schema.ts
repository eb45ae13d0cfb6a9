/** Write lib/quotas.schema.json, for editors, from the validator: node --import tsx scripts/schema.ts */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { toJsonSchema } from '@valibot/to-json-schema'
import { quotasSchema } from '../lib/quotas.ts'
import { type Program, readOptions } from '../lib/settings/options.ts'
import { isEntry, print, runScript } from '../lib/settings/script.ts'
import { storageError } from '../lib/system/durable.ts'
import { root } from '../lib/system/start-command.ts'

export const schemaFile = join(root, 'lib', 'quotas.schema.json')

const options = { print: { type: 'boolean', help: 'show it; write nothing' } } as const

const program: Program<typeof options> = {
  name: 'scripts/schema.ts',
  summary: 'Write lib/quotas.schema.json, for editors, from the validator of quotas.json.',
  options,
  example: '--print',
  notes: 'Exit codes: 0 done, 3 cannot write, 64 wrong usage',
}

/** The JSON Schema of quotas.json as it stands in the file; checks that are programs have no place in it. */
export function schemaText(): string {
  const schema = toJsonSchema(quotasSchema, { typeMode: 'input', ignoreActions: ['check', 'transform'] })
  return `${JSON.stringify(schema, null, 2)}\n`
}

/**
 * Write the schema, or show it.
 *
 * @returns what to print
 * @throws {TrainerError} `usage`; `storage` if it cannot be written
 */
function writeSchema(args: string[]): string {
  const read = readOptions(args, program)
  if (typeof read === 'string') return read
  if (read.values.print) return schemaText().trimEnd()
  try {
    writeFileSync(schemaFile, schemaText())
  } catch (cause) {
    throw storageError(`Cannot write ${schemaFile}`, cause)
  }
  return `wrote ${schemaFile}`
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    print(writeSchema(process.argv.slice(2)))
    return 0
  })
}
