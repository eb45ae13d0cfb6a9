import { resolve } from 'node:path'
import type { Job } from '../run.ts'
import { isWithin } from '../system/bytes.ts'

/** The kernel's words for a write that a sandbox refuses; a file that another user owns is the second kind. */
const refusal = /\bEROFS\b|read-only file system|\bEACCES\b|permission denied|\[Errno 13\]/i
const readOnly = /\bEROFS\b|read-only file system/i
/** A file cannot be renamed from one of the places that can be written to another, though both are in one folder. */
const acrossMounts = /\bEXDEV\b|cross-device link/i

/** A path in quotes, or before the kernel's words: `cannot create /x: Read-only file system`, `/x (Read-only …)`. */
const quoted = /['"‘`]([^'"‘’`]+)['"’`]/g
const unquoted =
  /(?<![^\s:;()])(?<=((?:create|open|mkdir|touch) )?)([^\s:;()]+)(?::| \(|;) *(?:read-only|permission denied)/gi

/** May a program in the sandbox write there? */
const writable = /^\/(tmp|var\/tmp|dev\/shm)(\/|$)|^\/dev\/(null|zero|full|std\w+|tty|pts)\b/

/** Is this line about a write to a filesystem that can only be read? */
export function tellsOfReadOnly(line: string): boolean {
  return readOnly.test(line)
}

/**
 * Explain an error that is the sandbox's doing: a write outside the folders that a training has there.
 *
 * @param error the words that the training ended with
 * @returns what was refused and what would help; undefined if the sandbox has nothing to do with it
 */
export function explainRefusal(
  error: string,
  { workDir, run }: Pick<Job, 'workDir' | 'run'>,
): string | undefined {
  if (acrossMounts.test(error)) {
    return 'in the sandbox TMPDIR is another filesystem than the output folder: write the file beside its target, or copy it (shutil.move)'
  }
  if (!refusal.test(error)) return undefined
  const { dir } = run.quotas
  const named = [...[...error.matchAll(quoted)].map(([, path]) => path!), ...unquotedPaths(error)]
  // The folder of quotas.json can be in /tmp, and is to be read only there too.
  const isWritable = (path: string) => !readOnly.test(error) && writable.test(resolve(dir, path))
  const isOutside = (path: string) => !isWithin(resolve(dir, path), workDir) && !isWritable(path)
  const outside = named.filter(it => !/\s/.test(it) || it.startsWith('/')).find(isOutside)
  // A name without a path may be that of anything, unless nothing else could be meant.
  const path = outside !== undefined && (outside.includes('/') || readOnly.test(error)) ? outside : undefined
  if (path === undefined && !readOnly.test(error)) return undefined
  const what = path === undefined ? 'a write outside its own folders' : `a write to ${resolve(dir, path)}`
  const option = path?.startsWith('/') ? 'an option' : 'an option (it works in the folder of quotas.json)'
  return (
    `the sandbox refused ${what}: it may write to its output folder, HOME, XDG_CACHE_HOME and TMPDIR; send this there by ` +
    `${option} or a variable of its own, such as "env": {"X_HOME": "{outputDir}/x"}, or set its sandbox to "off"`
  )
}

/** A word is a path from its first slash on; after a verb it is one as a whole. */
function unquotedPaths(error: string): string[] {
  return [...error.matchAll(unquoted)].flatMap(([, verb, word = '']) => {
    const path = verb ? word : word.slice(Math.max(0, word.indexOf('/')))
    return verb || (path.startsWith('/') && path.length > 1) ? [path] : []
  })
}
