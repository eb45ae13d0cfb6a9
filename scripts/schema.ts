/** Write lib/quotas.schema.json and lib/fleet/fleet.schema.json, for editors, from the validators: node --import tsx scripts/schema.ts */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { toJsonSchema } from '@valibot/to-json-schema'
import { fleetSchema } from '../lib/fleet/fleet-file.ts'
import { quotasSchema } from '../lib/quotas.ts'
import { type Program, readOptions } from '../lib/settings/options.ts'
import { isEntry, print, runScript } from '../lib/settings/script.ts'
import { storageError } from '../lib/system/durable.ts'
import { root } from '../lib/system/start-command.ts'

/** The validator of each schema's file, by the file's name. */
const schemas = {
  'lib/quotas.schema.json': quotasSchema,
  'lib/fleet/fleet.schema.json': fleetSchema,
}

type SchemaFile = keyof typeof schemas

export const schemaFiles = Object.keys(schemas) as SchemaFile[]

const options = { print: { type: 'boolean', help: 'show them; write nothing' } } as const

const program: Program<typeof options> = {
  name: 'scripts/schema.ts',
  summary: 'Write the schemas of quotas.json and fleet.json, from their validators.',
  options,
  example: '--print',
  notes: 'Exit codes: 0 done, 3 cannot write, 64 wrong usage',
}

/** The JSON Schema as it stands in the file; checks that are programs have no place in it. */
export function schemaText(file: SchemaFile): string {
  const schema = toJsonSchema(schemas[file], { typeMode: 'input', ignoreActions: ['check', 'transform'] })
  return `${JSON.stringify(schema, null, 2)}\n`
}

/**
 * Write the schemas, or show them.
 *
 * @returns what to print
 * @throws {TrainerError} `usage`; `storage` if one cannot be written
 */
function writeSchema(args: string[]): string {
  const read = readOptions(args, program)
  if (typeof read === 'string') return read
  if (read.values.print) return schemaFiles.map(schemaText).join('').trimEnd()
  for (const file of schemaFiles) {
    try {
      writeFileSync(join(root, file), schemaText(file))
    } catch (cause) {
      throw storageError(`Cannot write ${file}`, cause)
    }
  }
  return `wrote ${schemaFiles.join(' and ')}`
}

if (isEntry(import.meta)) {
  process.exitCode = await runScript(async () => {
    print(writeSchema(process.argv.slice(2)))
    return 0
  })
}
