import { closeSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { openPlain, UnusableFile } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { WIRE, WireReader } from './protobuf.ts'

type Message =
  | 'model'
  | 'opset'
  | 'graph'
  | 'subgraph'
  | 'value'
  | 'function'
  | 'training'
  | 'node'
  | 'attribute'
  | 'sparse'
  | 'tensor'
  | 'entry'

type Shape = {
  /** Fields whose messages are walked, mostly because they can contain a tensor. Other fields are passed over. */
  inner?: Record<number, Message>
  /** Names of the fields without which no runtime loads the model: strings or messages that are not empty. */
  required?: Record<number, string>
  /** The least sensible value of each required field that is a number. */
  least?: Record<number, number>
}

const graphFields: Record<number, Message> = { 1: 'node', 5: 'tensor', 15: 'sparse' }

/** The part of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto that matters here, by field number. */
const shapes: Record<Message, Shape> = {
  model: {
    inner: { 7: 'graph', 8: 'opset', 20: 'training', 25: 'function' },
    // Version 3 introduced operator sets, which give nodes their meaning.
    required: { 1: 'IR version of at least 3', 7: 'graph', 8: 'operator set' },
    least: { 1: 3 },
  },
  opset: { required: { 2: 'operator set version' }, least: { 2: 1 } },
  graph: {
    inner: { ...graphFields, 11: 'value', 12: 'value' },
    required: { 1: 'nodes', 11: 'inputs', 12: 'outputs' },
  },
  subgraph: { inner: graphFields },
  value: { required: { 1: 'name for an input or output' } },
  function: { inner: { 7: 'node', 11: 'attribute' } },
  training: { inner: { 1: 'subgraph', 2: 'subgraph' } },
  node: { inner: { 5: 'attribute' }, required: { 4: 'operator in one of its nodes' } },
  attribute: {
    inner: { 5: 'tensor', 6: 'subgraph', 10: 'tensor', 11: 'subgraph', 22: 'sparse', 23: 'sparse' },
  },
  sparse: { inner: { 1: 'tensor', 2: 'tensor' } },
  tensor: { inner: { 13: 'entry' } },
  entry: {},
}

/** Fields between two looks at the clock. */
const STEPS_A_LOOK = 256

/** Protobuf's own limit for messages within messages. */
const MAX_DEPTH = 100

export type OnnxStructure = {
  /** Maps the location of external tensor data, as written, to the fewest bytes that the file must have. */
  externalData: Map<string, number>
}

/**
 * Check the structure of an ONNX file: is it whole, with an IR version, operator sets and a graph with nodes, inputs
 * and outputs? The walk passes over the values of tensors, so its cost depends on the number of nodes and tensors, not
 * on their size. Protobuf would merge a message that stands twice; here each copy must be whole.
 *
 * @throws {UnusableFile} with the reason: `is empty`, `has no graph`, `is cut off or damaged at byte 4711`
 */
export async function inspectOnnx(file: string): Promise<OnnxStructure> {
  const { fd, stats } = openPlain(dirname(file), basename(file))
  try {
    if (stats.size === 0n) throw new UnusableFile('is empty')
    const structure: OnnxStructure = { externalData: new Map() }
    await walk(new WireReader(fd), Number(stats.size), structure)
    return structure
  } finally {
    closeSync(fd)
  }
}

/** A message on the way down to where the reader stands. */
type Level = {
  message: Message
  end: number
  /** Required fields that have not come yet, a bit each. */
  missing: number
  /** The facts of a tensor. */
  isExternal: boolean
  entries: Map<string, string> | undefined
  /** The key and the value of an entry about a tensor's external data. */
  key: string
  value: string
}

/** The required fields of each message, a bit each. */
const requiredBits = new Map(
  Object.entries(shapes).map(([message, { required = {} }]) => [
    message as Message,
    Object.keys(required).reduce((bits, field) => bits | (1 << Number(field)), 0),
  ]),
)

/** Walk without recursion: a file of millions of messages can be walked in slices then. */
async function walk(reader: WireReader, end: number, found: OnnxStructure): Promise<void> {
  const slice = new Slice()
  let level = levelOf('model', end)
  const above: Level[] = []
  for (let steps = 1; ; steps++) {
    // The clock takes longer than a step.
    if (steps % STEPS_A_LOOK === 0 && slice.isOver()) await slice.next()
    if (!reader.next(level.end)) {
      close(level, above.at(-1), found)
      const outer = above.pop()
      if (!outer) return
      level = outer
      continue
    }
    take(reader, level)
    const inner = reader.wireType === WIRE.bytes ? shapes[level.message].inner?.[reader.field] : undefined
    if (!inner) continue
    if (above.length + 1 >= MAX_DEPTH)
      throw new UnusableFile(`has more than ${MAX_DEPTH} messages within messages`)
    above.push(level)
    level = levelOf(inner, reader.enter())
  }
}

function levelOf(message: Message, end: number): Level {
  const missing = requiredBits.get(message)!
  return { message, end, missing, isExternal: false, entries: undefined, key: '', value: '' }
}

/** Take what a field says of the message that it is in. */
function take(reader: WireReader, level: Level): void {
  const { field, wireType } = reader
  const bit = field < 32 ? 1 << field : 0
  if (level.missing & bit && isPresent(reader, shapes[level.message].least?.[field])) level.missing &= ~bit
  if (level.message === 'tensor' && field === 14 && wireType === WIRE.varint)
    level.isExternal = reader.value === 1
  if (level.message !== 'entry' || wireType !== WIRE.bytes) return
  if (field === 1) level.key = reader.text()
  if (field === 2) level.value = reader.text()
}

function isPresent(reader: WireReader, least: number | undefined): boolean {
  if (least === undefined) return reader.wireType === WIRE.bytes && reader.length > 0
  // Negative numbers arrive as unsigned ones beyond 2^63.
  return reader.wireType === WIRE.varint && reader.value >= least && Number.isSafeInteger(reader.value)
}

/** Judge a message that has been read to its end. */
function close(level: Level, outer: Level | undefined, found: OnnxStructure): void {
  const { message, missing, key, value } = level
  if (missing) {
    const [called] = Object.entries(shapes[message].required!).flatMap(([field, name]) =>
      missing & (1 << Number(field)) ? [name] : [],
    )
    throw new UnusableFile(`has no ${called}`)
  }
  if (message === 'tensor') closeTensor(level, found)
  if (message !== 'entry' || !outer || !placeKeys.includes(key)) return
  outer.entries ??= new Map()
  if (outer.entries.has(key)) throw new UnusableFile(`states the ${key} of external data twice`)
  outer.entries.set(key, value)
}

/** An entry that says where external data are. */
const placeKeys = ['location', 'offset', 'length']

function closeTensor(
  { entries = new Map<string, string>(), isExternal }: Level,
  { externalData }: OnnxStructure,
): void {
  const location = entries.get('location')
  if (location === undefined) {
    if (isExternal) throw new UnusableFile('has external data without a location')
    return
  }
  // A location counts even where the tensor does not say that it is external: readers differ in that.
  const neededBytes = numberIn(entries, 'offset') + numberIn(entries, 'length')
  externalData.set(location, Math.max(neededBytes, externalData.get(location) ?? 0))
}

function numberIn(entries: Map<string, string>, key: string): number {
  const text = entries.get(key) ?? '0'
  if (!/^\d{1,15}$/.test(text)) throw new UnusableFile(`has external data with an unusable ${key}`)
  return Number(text)
}
