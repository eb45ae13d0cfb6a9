import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'

/** Where a tensor's values are kept, as the model says: numbers become decimal strings, as ONNX has it. */
type External = { location?: string; offset?: number | string; length?: number | string }

export type OnnxOptions = {
  /** `producer_name`: models that differ in it differ in content and in nothing else. */
  producer?: string
  irVersion?: number
  /** The part to leave out, to make a model that is not usable. */
  without?: 'ir' | 'opset' | 'graph' | 'nodes' | 'operator' | 'inputs' | 'outputs'
  /** Tensors whose values are in other files, each an initializer of its own. */
  external?: External[]
  /** Adds what graphs, nodes and tensors may have, as given: fields that a test makes by hand. */
  extra?: { model?: Uint8Array; graph?: Uint8Array; node?: Uint8Array }
  /** Where those tensors stand: in the graph, in a Constant node, or in a branch of an If node. */
  holder?: 'initializer' | 'sparse' | 'attribute' | 'branch'
  /** Adds `metadata_props` behind the graph, so that a proper prefix of the file is a complete model. */
  trailer?: boolean
}

/**
 * A small ONNX model that ONNX Runtime accepts: `output = float_input + bias`, two features wide.
 *
 * @example writeFileSync(join(dir, 'core.onnx'), onnxModel({ producer: 'second' }))
 */
export function onnxModel(options: OnnxOptions = {}): Buffer {
  const { without } = options
  const model = new BinaryWriter()
  if (without !== 'ir') model.tag(1, WireType.Varint).int64(options.irVersion ?? 8)
  text(model, 2, options.producer ?? 'test')
  if (without !== 'opset') message(model, 8, opset => opset.tag(2, WireType.Varint).int64(13))
  if (without !== 'graph') message(model, 7, graph => writeGraph(graph, options))
  if (options.extra?.model) model.raw(options.extra.model)
  if (options.trailer) message(model, 14, entry => text(text(entry, 1, 'key'), 2, 'value'))
  return Buffer.from(model.finish())
}

/**
 * Write a model whose last tensor has `tensorBytes` of zeros, as a sparse file: it takes a few KiB on disk.
 */
export function writeHugeOnnx(file: string, tensorBytes: number): void {
  const tensor = Buffer.concat([tensorHead('huge', [tensorBytes / 4]), lengthPrefix(9, tensorBytes)])
  const graph = new BinaryWriter()
  writeGraph(graph, {})
  const graphHead = Buffer.concat([graph.finish(), lengthPrefix(5, tensor.length + tensorBytes), tensor])
  const head = Buffer.concat([
    onnxModel({ without: 'graph' }),
    lengthPrefix(7, graphHead.length + tensorBytes),
    graphHead,
  ])
  const fd = openSync(file, 'w')
  writeSync(fd, head)
  ftruncateSync(fd, head.length + tensorBytes)
  closeSync(fd)
}

function writeGraph(graph: BinaryWriter, { without, external = [], holder, extra }: OnnxOptions): void {
  if (without !== 'nodes')
    message(graph, 1, node => writeNode(node, without === 'operator' ? '' : 'Add', extra?.node))
  for (const [index, location] of external.entries()) {
    if (holder === 'attribute' || holder === 'branch') {
      message(graph, 1, node => writeHolder(node, holder, location, `held ${index}`))
    } else if (holder === 'sparse') {
      message(graph, 15, sparse => writeSparse(sparse, location))
    } else {
      message(graph, 5, tensor => writeExternal(tensor, location))
    }
  }
  if (extra?.graph) graph.raw(extra.graph)
  text(graph, 2, 'graph')
  message(graph, 5, tensor =>
    tensor
      .raw(tensorHead('bias', [2]))
      .tag(9, WireType.LengthDelimited)
      .bytes(floats(1, 2)),
  )
  if (without !== 'inputs') message(graph, 11, value => writeValue(value, 'float_input'))
  if (without !== 'outputs') message(graph, 12, value => writeValue(value, 'output'))
}

function writeNode(node: BinaryWriter, operator: string, extra: Uint8Array | undefined): void {
  text(text(text(node, 1, 'float_input'), 1, 'bias'), 2, 'output')
  if (operator) text(node, 4, operator)
  if (extra) node.raw(extra)
}

/** A node that keeps an external tensor in an attribute, or in the graph of an attribute. */
function writeHolder(
  node: BinaryWriter,
  holder: 'attribute' | 'branch',
  location: External,
  name: string,
): void {
  text(text(node, 2, name), 4, holder === 'branch' ? 'If' : 'Constant')
  message(node, 5, attribute => {
    text(attribute, 1, holder === 'branch' ? 'then_branch' : 'value')
    if (holder === 'attribute') message(attribute, 5, tensor => writeExternal(tensor, location))
    else {
      message(attribute, 6, graph =>
        message(graph, 1, inner => writeHolder(inner, 'attribute', location, name)),
      )
    }
    attribute.tag(20, WireType.Varint).int32(holder === 'branch' ? 5 : 4)
  })
}

function writeSparse(sparse: BinaryWriter, location: External): void {
  message(sparse, 1, tensor => writeExternal(tensor, location))
  const index = new BinaryWriter().tag(7, WireType.LengthDelimited).bytes(Uint8Array.of(0))
  message(sparse, 2, tensor => tensor.raw(tensorHead('', [1], int64)).raw(index.finish()))
}

/** As many bytes as are stated, or one. */
function writeExternal(tensor: BinaryWriter, external: External): void {
  const { length } = external
  tensor.raw(tensorHead(`in ${external.location} at ${external.offset ?? 0}`, [Number(length) || 1], uint8))
  for (const [key, value] of Object.entries(external)) {
    message(tensor, 13, entry => text(text(entry, 1, key), 2, String(value)))
  }
  tensor.tag(14, WireType.Varint).int32(1)
}

function writeValue(value: BinaryWriter, name: string): void {
  text(value, 1, name)
  message(value, 2, type =>
    message(type, 1, tensor => {
      tensor.tag(1, WireType.Varint).int32(1)
      message(tensor, 2, shape => {
        message(shape, 1, dimension => text(dimension, 2, 'N'))
        message(shape, 1, dimension => dimension.tag(1, WireType.Varint).int64(2))
      })
    }),
  )
}

const float = 1
const uint8 = 2
const int64 = 7

function tensorHead(name: string, dims: number[], type = float): Uint8Array {
  const tensor = new BinaryWriter()
  for (const dim of dims) tensor.tag(1, WireType.Varint).int64(dim)
  return text(tensor.tag(2, WireType.Varint).int32(type), 8, name).finish()
}

function lengthPrefix(field: number, bytes: number): Uint8Array {
  return new BinaryWriter().tag(field, WireType.LengthDelimited).uint32(bytes).finish()
}

function message(writer: BinaryWriter, field: number, fill: (inner: BinaryWriter) => void): void {
  writer.tag(field, WireType.LengthDelimited).fork()
  fill(writer)
  writer.join()
}

function text(writer: BinaryWriter, field: number, value: string): BinaryWriter {
  return writer.tag(field, WireType.LengthDelimited).string(value)
}

function floats(...values: number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer)
}
