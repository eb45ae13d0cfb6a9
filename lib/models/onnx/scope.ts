import { type Bytes, escapeBytes } from '../../system/bytes.ts'
import { UnusableFile } from '../../system/plain-file.ts'

/**
 * The names of one graph. A node may use what an input, an initializer or an earlier node gives; the fields of a graph
 * come in any order, so what a node lacks is noted, and looked for at the end.
 */
export class Scope {
  readonly #made = new Set<Bytes>()
  readonly #inputs = new Set<Bytes>()
  readonly #initializers = new Set<Bytes>()
  readonly #outputs: Bytes[] = []
  readonly #lacking = new Set<Bytes>()

  /** Note a node, in the order of the graph. An empty name stands for an input that is left out. */
  addNode(inputs: Bytes[], outputs: Bytes[]): void {
    for (const name of inputs) if (name && !this.#made.has(name)) this.#lacking.add(name)
    for (const name of outputs) {
      if (!name) continue
      if (this.#made.has(name)) throw new UnusableFile(`has two nodes that make ${escapeBytes(name)}`)
      this.#made.add(name)
    }
  }

  addInput(name: Bytes): void {
    if (this.#inputs.has(name)) throw new UnusableFile(`has two inputs called ${escapeBytes(name)}`)
    this.#inputs.add(name)
  }

  addInitializer(name: Bytes): void {
    if (this.#initializers.has(name))
      throw new UnusableFile(`has two initializers called ${escapeBytes(name)}`)
    this.#initializers.add(name)
  }

  addOutput(name: Bytes): void {
    this.#outputs.push(name)
  }

  /** @returns the names that are used here and given nowhere in this graph: they are to come from an outer one */
  close(): Bytes[] {
    for (const names of [this.#inputs, this.#initializers]) {
      for (const name of names) {
        if (this.#made.has(name))
          throw new UnusableFile(`gives ${escapeBytes(name)} to the graph and makes it in a node`)
      }
    }
    const isGiven = (name: Bytes) => this.#inputs.has(name) || this.#initializers.has(name)
    const missing = this.#outputs.filter(name => !isGiven(name) && !this.#made.has(name))
    return [...missing, ...this.#lacking].filter(name => !isGiven(name))
  }
}
