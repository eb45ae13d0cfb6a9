import { closeSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { openPlain, type Recognise, UnusableFile } from '../system/plain-file.ts'
import { Slice } from '../system/slice.ts'
import { Level } from './onnx/level.ts'
import { Names } from './onnx/names.ts'
import { KNOWN_IR_VERSION, schema } from './onnx/schema.ts'
import { WIRE, WireReader } from './protobuf.ts'

/** Fields between two looks at the clock. */
const STEPS_A_LOOK = 256

/** Protobuf's own limit for messages within messages. */
const MAX_DEPTH = 100

/** The most that every implementation of protobuf takes in one message. */
const MAX_BYTES = 2 ** 31 - 1

/** More than any model has, apart from lists of values; a file made to be slow has more. */
const MAX_STEPS = 4_000_000

export type OnnxStructure = {
  /** Maps the location of external tensor data, one for each file, to the fewest bytes that the file must have. */
  externalData: Map<string, number>
}

/**
 * Check that a runtime can load an ONNX file, as far as its structure tells: it is whole, with an IR version, operator
 * sets and a graph with nodes, inputs and outputs; every tensor has the values that its dimensions and type need, in the
 * file or in another; every name that a node uses is given before; every domain is declared; and no field stands where
 * it does not belong. The walk passes over the values of tensors, so its cost depends on the number of nodes and
 * tensors, not on their size.
 *
 * Most models are walked at once; one that takes longer than a slice of time is walked in slices.
 *
 * @param recognise as {@link openPlain} takes it
 * @param signal ends the walk of a large model
 * @returns the structure, or a promise of it for a large model
 * @throws {UnusableFile} with the reason: `is empty`, `has no graph`, `is cut off or damaged at byte 4711`
 */
export function inspectOnnx(
  file: string,
  recognise?: Recognise,
  signal?: AbortSignal,
): OnnxStructure | Promise<OnnxStructure> {
  const { fd, stats } = openPlain(dirname(file), basename(file), recognise)
  let isWalking = false
  try {
    if (stats.size === 0n) throw new UnusableFile('is empty')
    if (stats.size > MAX_BYTES) {
      throw new UnusableFile(
        `has ${stats.size} bytes, which no runtime loads in one file: from 2 GiB on, keep weights in external data`,
      )
    }
    const walk = new Walk(fd, Number(stats.size))
    const slice = new Slice()
    if (walk.goOn(slice)) return walk.names
    isWalking = true
    return finish(walk, slice, signal).finally(() => closeSync(fd))
  } finally {
    if (!isWalking) closeSync(fd)
  }
}

async function finish(walk: Walk, slice: Slice, signal?: AbortSignal): Promise<OnnxStructure> {
  do await slice.giveWay(signal)
  while (!walk.goOn(slice))
  return walk.names
}

/** A walk without recursion, which can be interrupted at any message. */
class Walk {
  readonly names = new Names()
  readonly #reader: WireReader
  readonly #above: Level[] = []
  #level: Level
  #steps = 0
  /** A value that is in no table: damage, or of a later version of the format. */
  #unknown: string | undefined

  constructor(fd: number, bytes: number) {
    this.#reader = new WireReader(fd)
    this.#level = new Level('model', bytes, 0)
  }

  /** Walk until the slice is over; @returns true at the end of the file */
  goOn(slice: Slice): boolean {
    do {
      // The clock takes longer than a step.
      for (let steps = 0; steps < STEPS_A_LOOK; steps++) if (!this.#step()) return this.#end()
    } while (!slice.isOver())
    return false
  }

  #step(): boolean {
    const reader = this.#reader
    const level = this.#level
    if (++this.#steps > MAX_STEPS) throw new UnusableFile(`has more than ${MAX_STEPS} fields`)
    if (!reader.next(level.end)) {
      const outer = this.#above.pop()
      this.names.close(level, outer)
      if (outer) this.#level = outer
      return outer !== undefined
    }
    const field = schema[level.message][reader.field]
    if (!field) {
      if (level.message !== 'passed over')
        this.#unknown ??= `has a field ${reader.field} in its ${level.message} message`
      return true
    }
    level.note(reader, field)
    if (field.inner && reader.wireType === WIRE.bytes) {
      if (this.#above.length + 1 >= MAX_DEPTH)
        throw new UnusableFile(`has more than ${MAX_DEPTH} messages within messages`)
      this.#above.push(level)
      this.#level = new Level(field.inner, reader.enter(), reader.field)
      return true
    }
    this.names.take(reader, level)
    // A forest of trees has a field for each of its numbers: those make no step each.
    if (level.isList(reader.field)) {
      const run = reader.skipRun(level.end, STEPS_A_LOOK)
      if (run) level.tensor?.addValues(reader.field, run)
    }
    return true
  }

  #end(): true {
    if (this.#unknown && this.names.irVersion <= KNOWN_IR_VERSION)
      throw new UnusableFile(`${this.#unknown}, which there is not`)
    return true
  }
}
