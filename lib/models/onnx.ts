import { closeSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { openPlain, UnusableFile } from '../system/plain-file.ts'
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
const shapes: Record<Exclude<Message, 'tensor'>, Shape> = {
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
}

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
export function inspectOnnx(file: string): OnnxStructure {
  const { fd, stats } = openPlain(dirname(file), basename(file))
  try {
    if (stats.size === 0n) throw new UnusableFile('is empty')
    const structure: OnnxStructure = { externalData: new Map() }
    walk(new WireReader(fd), 'model', Number(stats.size), 1, structure)
    return structure
  } finally {
    closeSync(fd)
  }
}

function walk(reader: WireReader, message: Message, end: number, depth: number, found: OnnxStructure): void {
  if (depth > MAX_DEPTH) throw new UnusableFile(`has more than ${MAX_DEPTH} messages within messages`)
  if (message === 'tensor') {
    walkTensor(reader, end, found)
    return
  }
  const { inner, required = {}, least } = shapes[message]
  const missing = new Map(Object.entries(required))
  while (reader.next(end)) {
    const { field, wireType } = reader
    if (missing.size && isPresent(reader, least?.[field])) missing.delete(String(field))
    const innerMessage = wireType === WIRE.bytes ? inner?.[field] : undefined
    if (innerMessage) walk(reader, innerMessage, reader.enter(), depth + 1, found)
  }
  for (const called of missing.values()) throw new UnusableFile(`has no ${called}`)
}

function isPresent(reader: WireReader, least: number | undefined): boolean {
  if (least === undefined) return reader.wireType === WIRE.bytes && reader.length > 0
  // Negative numbers arrive as unsigned ones beyond 2^63.
  return reader.wireType === WIRE.varint && reader.value >= least && Number.isSafeInteger(reader.value)
}

function walkTensor(reader: WireReader, end: number, { externalData }: OnnxStructure): void {
  const entries = new Map<string, string>()
  let isExternal = false
  while (reader.next(end)) {
    if (reader.field === 13 && reader.wireType === WIRE.bytes) addEntry(reader, reader.enter(), entries)
    if (reader.field === 14 && reader.wireType === WIRE.varint) isExternal = reader.value === 1
  }
  const location = entries.get('location')
  if (location === undefined) {
    if (isExternal) throw new UnusableFile('has external data without a location')
    return
  }
  // Count a location even where the tensor does not say that it is external: readers differ in that.
  const neededBytes = numberIn(entries, 'offset') + numberIn(entries, 'length')
  externalData.set(location, Math.max(neededBytes, externalData.get(location) ?? 0))
}

/** Read a StringStringEntryProto into `entries`. */
function addEntry(reader: WireReader, end: number, entries: Map<string, string>): void {
  let key = ''
  let value = ''
  while (reader.next(end)) {
    if (reader.wireType !== WIRE.bytes) continue
    if (reader.field === 1) key = reader.text()
    if (reader.field === 2) value = reader.text()
  }
  if (entries.has(key)) throw new UnusableFile(`states the ${key} of external data twice`)
  entries.set(key, value)
}

function numberIn(entries: Map<string, string>, key: string): number {
  const text = entries.get(key) ?? '0'
  if (!/^\d{1,15}$/.test(text)) throw new UnusableFile(`has external data with an unusable ${key}`)
  return Number(text)
}
