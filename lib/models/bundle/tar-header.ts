import { TrainerError } from '../../errors.ts'
import { UnusableFile } from '../../system/plain-file.ts'
import { escapeText } from '../../text.ts'

/** The size of a block; headers, and contents filled up with zeros, are whole blocks. */
export const BLOCK_BYTES = 512

/** Offset and length in bytes of each field of a header. */
const fields = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  magic: [257, 8],
  prefix: [345, 155],
} as const

const POSIX_MAGIC = 'ustar\x0000'
const GNU_MAGIC = 'ustar  \0'

/**
 * Format the header of a plain file. It holds nothing of the machine or the moment.
 *
 * @throws {TrainerError} `training-failed` if name or size are too long for this form
 */
export function formatHeader(name: string, bytes: number): Buffer {
  const header = Buffer.alloc(BLOCK_BYTES)
  const put = (field: keyof typeof fields, value: string | Buffer) =>
    header.set(Buffer.from(value), fields[field][0])
  const { prefix, base } = splitName(name)
  put('name', base)
  put('prefix', prefix)
  put('mode', '0000644')
  put('uid', '0000000')
  put('gid', '0000000')
  put('size', octal(name, bytes))
  put('mtime', '00000000000')
  put('type', '0')
  put('magic', POSIX_MAGIC)
  put('checksum', `${checksumOf(header).toString(8).padStart(6, '0')}\0 `)
  return header
}

function octal(name: string, bytes: number): string {
  const digits = bytes.toString(8).padStart(11, '0')
  if (digits.length > 11) throw unfit(name, `it has ${bytes} bytes, possible are less than 8 GiB`)
  return digits
}

/** Split a long name over two fields, at a slash. */
function splitName(name: string): { prefix: Buffer; base: Buffer } {
  const bytes = Buffer.from(name)
  const [, baseBytes] = fields.name
  if (bytes.length <= baseBytes) return { prefix: Buffer.alloc(0), base: bytes }
  const slash = bytes.indexOf('/', bytes.length - baseBytes - 1)
  if (slash < 0 || slash > fields.prefix[1]) throw unfit(name, 'its name is too long')
  return { prefix: bytes.subarray(0, slash), base: bytes.subarray(slash + 1) }
}

function unfit(name: string, reason: string): TrainerError {
  return new TrainerError('training-failed', `Cannot put ${escapeText(name)} into a tar file: ${reason}`)
}

/**
 * Read a header that may come from anybody.
 *
 * @throws {UnusableFile} if it is damaged or not of a plain file; the reason completes a sentence about the archive
 */
export function parseHeader(header: Buffer): { name: string; bytes: number } {
  const get = (field: keyof typeof fields) => {
    const [start, length] = fields[field]
    return header.subarray(start, start + length)
  }
  const magic = get('magic').toString('latin1')
  if ((magic !== POSIX_MAGIC && magic !== GNU_MAGIC) || numberOf(get('checksum')) !== checksumOf(header)) {
    throw new UnusableFile('does not hold a tar file, or is damaged')
  }
  // GNU tar keeps other things in the prefix field.
  const prefix = magic === POSIX_MAGIC ? textOf(get('prefix')) : ''
  const name = prefix ? `${prefix}/${textOf(get('name'))}` : textOf(get('name'))
  const type = get('type').toString('latin1')
  if (type !== '0' && type !== '\0') {
    throw new UnusableFile(
      `holds ${kinds[type] ?? 'something unknown'}, ${escapeText(name)}; only plain files may be in it`,
    )
  }
  const bytes = numberOf(get('size'))
  if (bytes === undefined)
    throw new UnusableFile(`holds ${escapeText(name)} with a size that is not a plain number`)
  return { name, bytes }
}

const kinds: Record<string, string> = {
  1: 'a hard link',
  2: 'a symbolic link',
  3: 'a device',
  4: 'a device',
  5: 'a folder',
  6: 'a FIFO',
  g: 'an extended header',
  x: 'an extended header',
  K: 'an extended header',
  L: 'an extended header',
}

function textOf(field: Buffer): string {
  const end = field.indexOf(0)
  const bytes = end < 0 ? field : field.subarray(0, end)
  const text = bytes.toString()
  if (!Buffer.from(text).equals(bytes))
    throw new UnusableFile(`holds a file whose name is not UTF-8: ${escapeText(bytes)}`)
  return text
}

/** Read octal digits, as every program writes them up to 8 GiB. Undefined for GNU's binary numbers. */
function numberOf(field: Buffer): number | undefined {
  const digits = /^ *([0-7]+)[ \0]*$/.exec(field.toString('latin1'))?.[1]
  return digits === undefined ? undefined : Number.parseInt(digits, 8)
}

/** Sum a header's bytes, with the checksum's own field taken as blanks. */
function checksumOf(header: Buffer): number {
  const [start, length] = fields.checksum
  return header.reduce((sum, byte, at) => sum + (at >= start && at < start + length ? 0x20 : byte), 0)
}
