import { UnusableFile } from '../../system/plain-file.ts'
import { WIRE, type WireReader } from '../protobuf.ts'
import type { Field, Message } from './schema.ts'
import { Scope } from './scope.ts'
import { Tensor } from './tensor.ts'

/** Repeated values that nobody has to look at: those of attributes, and of tensors. */
const lists: Partial<Record<Message, number[]>> = {
  attribute: [7, 8, 9],
  tensor: [4, 5, 6, 7, 10, 11],
  sparse: [3],
}

/** Shared by what declares nothing, and never changed. */
const none = new Set<string>()

const withNames: Message[] = ['graph', 'subgraph', 'training graph', 'function']

/** A message on the way down to where the reader stands, and what it has said so far. */
export class Level {
  readonly message: Message
  readonly end: number
  /** The field of the outer message that it is. */
  readonly field: number
  /** The fields that have come, a bit each. */
  seen = 0
  /** A name or a key. */
  name = ''
  /** An operator's domain, or the value of an entry. */
  value = ''
  /** A version, or the number of a type. */
  number = 0
  /** The names that a node, and the graphs in it, use; of an attribute those of its graphs. */
  inputs: string[] | undefined
  outputs: string[] | undefined
  /** The domains of operators in a graph or a function, and in what is inside. */
  used: Set<string> | undefined
  /** The domains that a function declares. */
  readonly declared: Set<string>
  readonly scope: Scope | undefined
  readonly tensor: Tensor | undefined

  constructor(message: Message, end: number, field: number) {
    this.message = message
    this.end = end
    this.field = field
    this.scope = withNames.includes(message) ? new Scope() : undefined
    this.declared = message === 'function' ? new Set() : none
    this.tensor = message === 'tensor' ? new Tensor() : undefined
  }

  has(field: number): boolean {
    return (this.seen & (1 << field)) !== 0
  }

  /** @throws {UnusableFile} if the field stands twice and must not, or has values of another kind */
  note({ field, wireType }: WireReader, { wire, isRepeated, isPackable }: Field): void {
    if (wireType !== wire && !(isPackable && wireType === WIRE.bytes)) {
      throw new UnusableFile(`has a damaged field ${field} in its ${this.message} message`)
    }
    // Protobuf would merge them: a file that was written twice, one after the other, would be both.
    if (!isRepeated && this.has(field)) {
      throw new UnusableFile(`has two fields ${field} in its ${this.message} message`)
    }
    this.seen |= 1 << field
  }

  isList(field: number): boolean {
    return lists[this.message]?.includes(field) ?? false
  }

  /** Hand on what an inner message uses to the message that it is in. */
  handOn({ inputs, used }: Pick<Level, 'inputs' | 'used'>): void {
    if (inputs?.length) this.inputs = this.inputs ? this.inputs.concat(inputs) : inputs
    if (used) for (const domain of used) this.use(domain)
  }

  use(domain: string): void {
    this.used ??= new Set()
    this.used.add(domain)
  }
}
