import { basename, dirname } from 'node:path'
import type { Bytes } from '../system/bytes.ts'

// What the names of files and folders tell of them, as the common frameworks give them.

/** One file of several that are one: `-00001-of-00003`, `.data-00000-of-00002`, `_rank0`, `-shard3`. */
const SHARD =
  /[-_.](?:\d+-of-\d+|(?:rank|shard|part|worker|gpu|host|(?:mp|tp|pp|dp)(?:_rank)?)[-_=]?\d+)(?![\d.]*\d)/gi
/** The list of a model's shards: `model.safetensors.index.json`. */
const INDEX_OF_SHARDS = /\.index(?:\.json)?$/
const ENDING = /(?<=.)\.[a-z]\w*$/i
/** A word that follows the last number of a name: `epoch-3.model`, `step_100_optimizer`. */
const AFTER_LAST_NUMBER = /(?<=\d)[-_.]\D*$/
/** Numbers count; a fraction, such as a loss, is no count. */
const NUMBERS = /\d+(?:\.\d+)?/g
/** A folder of this name is one checkpoint, whatever it holds. */
const CHECKPOINT_FOLDER =
  /(?:^|[-_.])(?:checkpoint|chkpt|ckpt|epoch|global_?step|step|iter|iteration|update|snapshot)[-_=.]?\d+/i
/** Transformers: `tmp-checkpoint-5`; TensorFlow: `ckpt-5_temp`; Orbax: `5.orbax-checkpoint-tmp-1`; downloads: `*.part`. */
const STAGING = /^\.?te?mp-|_temp$|\.(?:tmp|part|partial|incomplete|staging)$|\.orbax-checkpoint-tmp/

/** Has it a name that trainings give to what they are still writing? */
export function isStagingName(name: Bytes): boolean {
  return STAGING.test(name)
}

/**
 * The path of the checkpoint that a file or folder belongs to, below `root`. Files of one checkpoint lie in a folder that is
 * named as one, or have names that agree up to the ending, or up to what follows the last number.
 */
export function checkpointOf(root: Bytes, folder: Bytes, name: Bytes): Bytes {
  let parent: Bytes | undefined
  for (let path = folder; path.length > root.length; path = dirname(path))
    if (CHECKPOINT_FOLDER.test(basename(path))) parent = path
  const stem = stemOf(name)
  if (parent === undefined && folder.length > root.length && !/\d/.test(stem) && /\d/.test(basename(folder)))
    parent = folder
  return parent === undefined ? `${folder}/${stem}` : `${dirname(parent)}/${stemOf(basename(parent))}`
}

function stemOf(name: Bytes): Bytes {
  const stem = name.replace(INDEX_OF_SHARDS, '').replaceAll(SHARD, '').replace(ENDING, '')
  return stem.replace(AFTER_LAST_NUMBER, '') || name
}

/** A checkpoint's place among those of the same pattern, which compares as text; undefined without a number. */
export function placeOf(checkpoint: Bytes): { pattern: Bytes; place: string } | undefined {
  const name = basename(checkpoint)
  let place = ''
  const pattern = name.replace(NUMBERS, number => {
    if (!number.includes('.')) place += comparable(number)
    return '#'
  })
  return place ? { pattern: `${dirname(checkpoint)}/${pattern}`, place } : undefined
}

/** Make a name compare as if its numbers were compared as numbers: each is preceded by its length. */
export function comparable(name: Bytes): string {
  return name.replace(/0*(\d+)/g, (_, digits: string) => String.fromCharCode(digits.length) + digits)
}
