/** Write lib/quotas.schema.json, for editors, from the validator: node --import tsx scripts/schema.ts */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { toJsonSchema } from '@valibot/to-json-schema'
import { quotasSchema } from '../lib/quotas.ts'
import { isEntry } from '../lib/script.ts'

export const schemaFile = join(import.meta.dirname, '..', 'lib', 'quotas.schema.json')

/** The JSON Schema of quotas.json as it stands in the file. */
export function schemaText(): string {
  return `${JSON.stringify(toJsonSchema(quotasSchema, { typeMode: 'input' }), null, 2)}\n`
}

if (isEntry(import.meta)) writeFileSync(schemaFile, schemaText())
