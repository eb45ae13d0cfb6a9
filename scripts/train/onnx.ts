import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { type Classifier, clipAt } from './classifier.ts'

/** The description in a model, which consumers read without running it. */
export type OnnxDescription = {
  version: string
  trained_on: string
  features: readonly string[]
  classes: readonly string[]
  seed: number
  performance_metrics: Readonly<Record<string, number>>
}

const irVersion = 8
const opset = 13
const float32 = 1
const int64 = 7
const integerAttribute = 2
/** A shape; a dimension is a number, or `N` where any size is accepted. */
type Shape = readonly (number | 'N')[]

/**
 * Encode a classifier as an ONNX model. `float_input` [N, features] takes raw features; `label` (int64 [N]) is the
 * index of the likeliest class, and `probabilities` (float [N, classes]) holds the probability of each class. The
 * description goes into `metadata_props`, as text or JSON. The same classifier and description give the same bytes.
 */
export function encodeOnnx(name: string, classifier: Classifier, description: OnnxDescription): Uint8Array {
  const model = new Message()
    .integer(1, irVersion)
    .text(2, 'ransomeye-trainer')
    .text(3, description.version)
    .text(6, description.trained_on)
    .message(7, graphOf(name, classifier))
    .message(8, new Message().text(1, '').integer(2, opset))
  for (const [key, value] of Object.entries(description)) {
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    model.message(14, new Message().text(1, key).text(2, text))
  }
  return model.finish()
}

function graphOf(name: string, { mean, scale, network }: Classifier): Message {
  const graph = new Message()
  const features = mean.length
  const last = network.layers.at(-1)!
  const initializers: Message[] = [
    tensor('mean', [features], mean),
    tensor('scale', [features], scale),
    tensor('lowest', [], Float32Array.of(-clipAt)),
    tensor('highest', [], Float32Array.of(clipAt)),
  ]
  graph
    .message(1, node('Sub', ['float_input', 'mean'], 'centred'))
    .message(1, node('Mul', ['centred', 'scale'], 'scaled'))
    .message(1, node('Clip', ['scaled', 'lowest', 'highest'], 'layer0'))
  network.layers.forEach(({ inputs, outputs, offset }, index) => {
    const biases = offset + inputs * outputs
    initializers.push(
      tensor(`weights${index}`, [outputs, inputs], network.weights.subarray(offset, biases)),
      tensor(`biases${index}`, [outputs], network.weights.subarray(biases, biases + outputs)),
    )
    const operands = [`layer${index}`, `weights${index}`, `biases${index}`]
    graph.message(1, node('Gemm', operands, `sums${index}`, { transB: 1 }))
    if (index < network.layers.length - 1)
      graph.message(1, node('Relu', [`sums${index}`], `layer${index + 1}`))
  })
  const sums = `sums${network.layers.length - 1}`
  graph
    .message(1, node('Softmax', [sums], 'probabilities', { axis: 1 }))
    .message(1, node('ArgMax', ['probabilities'], 'label', { axis: 1, keepdims: 0 }))
    .text(2, name)
  for (const initializer of initializers) graph.message(5, initializer)
  return graph
    .message(11, value('float_input', float32, ['N', features]))
    .message(12, value('label', int64, ['N']))
    .message(12, value('probabilities', float32, ['N', last.outputs]))
}

function node(
  operator: string,
  inputs: string[],
  output: string,
  attributes: Record<string, number> = {},
): Message {
  const message = new Message()
  for (const input of inputs) message.text(1, input)
  message.text(2, output).text(3, output).text(4, operator)
  for (const [name, integer] of Object.entries(attributes)) {
    message.message(5, new Message().text(1, name).integer(3, integer).integer(20, integerAttribute))
  }
  return message
}

function tensor(name: string, shape: number[], values: Float32Array): Message {
  const little = Buffer.alloc(values.length * 4)
  for (const [index, value] of values.entries()) little.writeFloatLE(value, index * 4)
  const message = new Message()
  for (const size of shape) message.integer(1, size)
  return message.integer(2, float32).text(8, name).bytes(9, little)
}

function value(name: string, elementType: number, shape: Shape): Message {
  const dimensions = new Message()
  for (const size of shape) {
    dimensions.message(1, size === 'N' ? new Message().text(2, size) : new Message().integer(1, size))
  }
  const tensorType = new Message().integer(1, elementType).message(2, dimensions)
  return new Message().text(1, name).message(2, new Message().message(1, tensorType))
}

/** A protobuf message under construction. Its field numbers are those of onnx.proto. */
class Message {
  readonly #writer = new BinaryWriter()

  integer(field: number, value: number): this {
    this.#writer.tag(field, WireType.Varint).int64(value)
    return this
  }

  text(field: number, value: string): this {
    this.#writer.tag(field, WireType.LengthDelimited).string(value)
    return this
  }

  bytes(field: number, value: Uint8Array): this {
    this.#writer.tag(field, WireType.LengthDelimited).bytes(value)
    return this
  }

  message(field: number, inner: Message): this {
    return this.bytes(field, inner.finish())
  }

  finish(): Uint8Array {
    return this.#writer.finish()
  }
}
