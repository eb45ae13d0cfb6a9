import { WIRE } from '../protobuf.ts'

/** The messages of an ONNX file, by our names. */
export type Message =
  | 'model'
  | 'opset'
  | 'graph'
  | 'subgraph'
  | 'training graph'
  | 'value'
  | 'inner value'
  | 'type'
  | 'tensor type'
  | 'element type'
  | 'map type'
  | 'opaque type'
  | 'shape'
  | 'dimension'
  | 'function'
  | 'training'
  | 'node'
  | 'attribute'
  | 'sparse'
  | 'tensor'
  | 'entry'
  | 'place'
  | 'annotation'
  | 'passed over'

/** One field of a message. */
export type Field = {
  /** Protobuf's wire type of one value. */
  wire: number
  /** May it stand more than once? */
  isRepeated: boolean
  /** A repeated number, which may also come packed: many values in one field. */
  isPackable: boolean
  /** A message is walked; other values are passed over. */
  inner: Message | undefined
}

/** The newest version of the format whose fields are in {@link schema}; a model of a later one may have others. */
export const KNOWN_IR_VERSION = 13

function field(wire: number, isRepeated = false, inner?: Message): Field {
  return { wire, isRepeated, isPackable: isRepeated && wire !== WIRE.bytes, inner }
}

const number = field(WIRE.varint)
const numbers = field(WIRE.varint, true)
const float = field(WIRE.fixed32)
const floats = field(WIRE.fixed32, true)
const doubles = field(WIRE.fixed64, true)
const bytes = field(WIRE.bytes)
const text = bytes
const texts = field(WIRE.bytes, true)
const one = (inner: Message) => field(WIRE.bytes, false, inner)
const many = (inner: Message) => field(WIRE.bytes, true, inner)

const entries = many('entry')

function graphFields(value: Message): Record<number, Field> {
  return {
    1: many('node'),
    2: text,
    5: many('tensor'),
    10: text,
    11: many(value),
    12: many(value),
    13: many('inner value'),
    14: many('annotation'),
    15: many('sparse'),
    16: entries,
  }
}

/** Every field of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, by message and number. */
export const schema: Record<Message, Record<number, Field>> = {
  model: {
    1: number,
    2: text,
    3: text,
    4: text,
    5: number,
    6: text,
    7: one('graph'),
    8: many('opset'),
    14: entries,
    20: many('training'),
    25: many('function'),
    26: many('passed over'),
  },
  opset: { 1: text, 2: number },
  graph: graphFields('value'),
  subgraph: graphFields('inner value'),
  'training graph': graphFields('inner value'),
  value: { 1: text, 2: one('type'), 3: text, 4: entries },
  'inner value': { 1: text, 2: one('type'), 3: text, 4: entries },
  type: {
    1: one('tensor type'),
    4: one('element type'),
    5: one('map type'),
    6: text,
    7: one('opaque type'),
    8: one('tensor type'),
    9: one('element type'),
  },
  'tensor type': { 1: number, 2: one('shape') },
  'element type': { 1: one('type') },
  'map type': { 1: number, 2: one('type') },
  'opaque type': { 1: text, 2: text },
  shape: { 1: many('dimension') },
  dimension: { 1: number, 2: text, 3: text },
  function: {
    1: text,
    4: texts,
    5: texts,
    6: texts,
    7: many('node'),
    8: text,
    9: many('opset'),
    10: text,
    11: many('attribute'),
    12: many('inner value'),
    13: text,
    14: entries,
  },
  training: { 1: one('training graph'), 2: one('training graph'), 3: entries, 4: entries },
  node: {
    1: texts,
    2: texts,
    3: text,
    4: text,
    5: many('attribute'),
    6: text,
    7: text,
    8: text,
    9: entries,
    10: many('passed over'),
  },
  attribute: {
    1: text,
    2: float,
    3: number,
    4: bytes,
    5: one('tensor'),
    6: one('subgraph'),
    7: floats,
    8: numbers,
    9: texts,
    10: many('tensor'),
    11: many('subgraph'),
    13: text,
    14: one('type'),
    15: many('type'),
    20: number,
    21: text,
    22: one('sparse'),
    23: many('sparse'),
  },
  sparse: { 1: one('tensor'), 2: one('tensor'), 3: numbers },
  tensor: {
    1: numbers,
    2: number,
    3: one('passed over'),
    4: floats,
    5: numbers,
    6: texts,
    7: numbers,
    8: text,
    9: bytes,
    10: doubles,
    11: numbers,
    12: text,
    13: many('place'),
    14: number,
    16: entries,
  },
  entry: { 1: text, 2: text },
  place: { 1: text, 2: text },
  annotation: { 1: text, 2: entries },
  'passed over': {},
}
