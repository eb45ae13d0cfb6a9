import { basename, dirname } from 'node:path'
import type { Bytes } from '../system/bytes.ts'

// The meaning of the names of files and folders, as the common frameworks give them.

const PROCESS = String.raw`(?:rank|shard|part|worker|gpu|host|(?:mp|tp|pp|dp)(?:_rank)?)[-_=]?\d+`
/** One file of several that are one: `-00001-of-00003`, `.data-00000-of-00002`, `_rank0`, `-shard3`; `rank0-` before the rest. */
const SHARD = new RegExp(String.raw`[-_.](?:\d+[-_]?of[-_]?\d+|${PROCESS})(?![\d.]*\d)`, 'gi')
const LEADING_SHARD = new RegExp(`^${PROCESS}[-_.](?=.*\\d)`, 'i')
/** A model's shards, of TensorFlow, and their list: `cp.ckpt.index`, `model.safetensors.index.json`. */
const PART = /\.(?:index(?:\.json)?|data)$/
/** The files that Keras' BackupAndRestore resumes from: one without the other is worse than nothing. */
const KERAS_BACKUP = /^(?:latest\.weights\.h5|training_metadata\.json)(?:\.bkp)?$/
const ENDING = /(?<=.)\.[a-z]\w*$/i
/** A word that follows the last number of a name: `epoch-3.model`, `step_100_optimizer`. */
const AFTER_LAST_NUMBER = /(?<=\d)[-_.]\D*$/
/** Numbers count; a fraction, such as a loss, is no count. */
const NUMBERS = /\d+(?:\.\d+)?/g
/** A folder of this name is one checkpoint, whatever it holds, but for what has such a name and another number itself. */
const NUMBERED =
  /(?:^|[-_.])(?:checkpoint|chkpt|ckpt|epoch|global_?step|step|iter|iteration|update|snapshot)[-_=.]?(\d+)/i
/** A number before one that is called so means something else: what is trained (`fold2-epoch=3`), or a metric. */
const COUNTED = /(?:epoch|step|iter|iteration|update)[-_=.]?(?=\d)/i
/** Words for what is half-written. */
const HALF = 'te?mp|partial|incomplete|staging'
/**
 * Transformers: `tmp-checkpoint-5`; TensorFlow: `ckpt-5_temp`, `*.tempstate123`; Orbax: `5.orbax-checkpoint-tmp-1`; Python's
 * tempfile: `tmpk3j_x9qa`; downloads: `*.part`; scripts: `_tmp_epoch_5`, `partial-epoch_5`, `epoch_5.tmp.123`. Not a
 * model, `temp_forecast.onnx`.
 */
const STAGING = new RegExp(
  String.raw`^[._]*tmp[-_.]|^\.?temp-(?!\d)|^[._]*(?:${HALF})[-_.](?=.*(?:checkpoint|chkpt|ckpt|epoch|step|iter))(?!\d)|` +
    String.raw`^tmp[a-z0-9_]{8}$|[-_](?:${HALF})$|\.(?:${HALF}|part|saving|writing|download|tempstate)[-_.]?\d*$|` +
    String.raw`~$|\.orbax-checkpoint-tmp`,
)
/** Nearly all names are looked at, and few have such a word. */
const MAY_BE_STAGING = /tmp|temp|part|incomplete|staging|saving|writing|download|~$/
/** Their own name says of these that they are what a training goes on with, or wants in the end. */
const BEST = /(?:^|[-_.])best(?=$|[-_.=\d])/i
const LAST = /(?:^|[-_.])(?:last|latest)(?=$|[-_.=\d])/i

/** Has it a name that trainings give to what they are still writing? */
export function isStagingName(name: Bytes): boolean {
  return MAY_BE_STAGING.test(name) && STAGING.test(name)
}

/** Is it a training's best checkpoint by its name? */
export function isBestName(name: Bytes): boolean {
  return BEST.test(name)
}

/** Is it a training's last or best checkpoint by its name? */
export function isTelling(name: Bytes): boolean {
  return BEST.test(name) || LAST.test(name)
}

/**
 * Tells the path of the checkpoint that a file or folder below a folder `root` belongs to. Files of one checkpoint lie in a
 * folder that is named as one, or have names that agree up to the ending, or up to what follows the last number.
 */
export class Belonging {
  readonly #root: Bytes
  /** The last folder that was asked about: most are asked about many times in a row. */
  #folder: Bytes = ''
  #checkpoint: Bytes | undefined
  #number: number | undefined
  #isNumbered = false

  constructor(root: Bytes) {
    this.#root = root
  }

  checkpointOf(folder: Bytes, name: Bytes): Bytes {
    if (folder !== this.#folder) this.#enter(folder)
    if (this.#checkpoint !== undefined) {
      const number = numberIn(name)
      if (number === undefined || number === this.#number) return this.#checkpoint
    }
    const stem = stemOf(name)
    return this.#isNumbered && !/\d/.test(stem) ? named(folder) : `${folder}/${stem}`
  }

  #enter(folder: Bytes): void {
    this.#folder = folder
    this.#isNumbered = folder.length > this.#root.length && /\d/.test(basename(folder))
    this.#checkpoint = undefined
    this.#number = undefined
    for (let path = folder; path.length > this.#root.length; path = dirname(path)) {
      const number = numberIn(basename(path))
      if (number === undefined || (this.#number !== undefined && number !== this.#number)) continue
      this.#number = number
      this.#checkpoint = named(path)
    }
  }
}

/** Does a name say of which checkpoint by number it is, or is a part? */
export function isNumbered(name: Bytes): boolean {
  return numberIn(name) !== undefined
}

/** The number of a checkpoint that a name says it is, or is a part of. */
function numberIn(name: Bytes): number | undefined {
  const [, digits] = NUMBERED.exec(name) ?? []
  return digits === undefined ? undefined : Number(digits)
}

/** The checkpoint that a folder is. */
function named(folder: Bytes): Bytes {
  return `${dirname(folder)}/${stemOf(basename(folder))}`
}

function stemOf(name: Bytes): Bytes {
  if (KERAS_BACKUP.test(name)) return 'latest.weights'
  const whole = name.replace(LEADING_SHARD, '').replace(SHARD, '').replace(PART, '')
  return whole.replace(ENDING, '').replace(AFTER_LAST_NUMBER, '') || name
}

/** A checkpoint's place among those of the same pattern, which compares as text; undefined without a number. */
export function placeOf(checkpoint: Bytes): Place | undefined {
  const start = checkpoint.lastIndexOf('/') + 1
  const counted = start + Math.max(0, checkpoint.slice(start).search(COUNTED))
  let pattern = checkpoint.slice(0, start)
  let place = ''
  let end = start
  NUMBERS.lastIndex = start
  for (let found = NUMBERS.exec(checkpoint); found; found = NUMBERS.exec(checkpoint)) {
    const [number] = found
    const isBefore = found.index < counted
    const isFraction = number.includes('.')
    if (isBefore && !isFraction && checkpoint[found.index - 1] !== '=') continue
    pattern += `${checkpoint.slice(end, found.index)}#`
    end = NUMBERS.lastIndex
    if (!isBefore && !isFraction) place += comparable(number)
  }
  return place ? { pattern: pattern + checkpoint.slice(end), place } : undefined
}

/** Where something stands among what has the same pattern of a name: those places compare as text. */
export type Place = { pattern: Bytes; place: string }

/** Make a name compare as if its numbers were compared as numbers: each is preceded by its length. */
export function comparable(name: Bytes): string {
  return name.replace(/0*(\d+)/g, (_, digits: string) => String.fromCharCode(digits.length) + digits)
}
