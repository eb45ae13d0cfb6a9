/** Put a copy of the project that is translated to JavaScript, which starts much sooner, into a new folder: … translate.ts FOLDER */
import { cpSync } from 'node:fs'
import { translateProject } from '../support/translate.ts'

await using copy = await translateProject()
cpSync(copy.dir, process.argv[2]!, { recursive: true, verbatimSymlinks: true })
