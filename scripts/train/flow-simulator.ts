import type { FlowStyle } from './flow-styles.ts'
import type { Random } from './random.ts'
import { drawRow } from './range-table.ts'

/** One packet as a probe sees it; `up` tells that the watched host sent it. */
export type Packet = {
  timeS: number
  up: boolean
  port: number
  payloadBytes: number
  flag: 'none' | 'syn' | 'fin' | 'rst'
  /** Shannon entropy of the payload, bits a byte. */
  entropyBits: number
}

/** The values that one flow draws from its style. */
type Habits = Record<keyof FlowStyle, number>

/** The most that a probe sees of a flow, the exchange of two hosts on whatever ports. */
const mostPackets = 200
const longestS = 3600
const segmentBytes = 1448

/** The shares and levels, which are drawn evenly. */
const levels: ReadonlySet<string> = new Set<keyof FlowStyle>([
  'jitter',
  'spread',
  'entropy',
  'reuse',
  'answered',
  'refused',
])

/** Simulate one flow of a style, packet by packet. */
export function simulateFlow(style: FlowStyle, random: Random): Packet[] {
  const habits = drawRow(style, levels, random)
  const wire = new Wire(habits, random)
  while (!wire.isFull()) {
    for (let left = 1 + random.poisson(habits.burst - 1); left > 0 && !wire.isFull(); left--) {
      wire.exchange()
      if (!random.chance(habits.reuse)) wire.close()
      if (left > 1) wire.wait(random.exponential(0.1))
    }
    wire.wait(habits.gapS * around(habits.jitter, random))
  }
  return wire.packets
}

/** Draw a positive factor of mean 1 that varies by about `deviation`. */
function around(deviation: number, random: Random): number {
  const sigma = Math.sqrt(Math.log(1 + deviation ** 2))
  return Math.exp(random.normal(-(sigma ** 2) / 2, sigma))
}

/** The line between the two hosts, and the clock. */
class Wire {
  readonly packets: Packet[] = []
  #nowS = 0
  #port = 0
  #isOpen = false
  readonly #habits: Habits
  readonly #random: Random
  readonly #roundTripS: number

  constructor(habits: Habits, random: Random) {
    this.#habits = habits
    this.#random = random
    this.#roundTripS = random.logUniform(0.001, 0.2)
  }

  isFull(): boolean {
    return this.packets.length >= mostPackets || this.#nowS > longestS
  }

  wait(seconds: number): void {
    this.#nowS += seconds
  }

  /** Connect if need be, and exchange a request and its response. */
  exchange(): void {
    if (!this.#isOpen && !this.#connect()) return
    this.#transfer(true, this.#habits.upBytes * around(this.#habits.spread, this.#random))
    this.wait(this.#roundTripS * around(0.3, this.#random))
    this.#transfer(false, this.#habits.downBytes * around(this.#habits.spread, this.#random))
  }

  close(): void {
    if (this.#isOpen && !this.#habits.datagrams) {
      this.#send(true, 0, 'fin')
      this.#send(false, 0, 'fin')
    }
    this.#isOpen = false
  }

  #connect(): boolean {
    this.#port = (this.#port + 1) % Math.round(this.#habits.ports)
    this.#isOpen = this.#habits.datagrams === 1 || this.#random.chance(this.#habits.answered)
    if (this.#habits.datagrams) return true
    this.#send(true, 0, 'syn')
    this.wait(this.#roundTripS)
    if (this.#isOpen) {
      this.#send(false, 0, 'syn')
      this.#send(true, 0)
    } else if (this.#random.chance(this.#habits.refused)) this.#send(false, 0, 'rst')
    return this.#isOpen
  }

  /** Send segments, every second one acknowledged. */
  #transfer(up: boolean, bytes: number): void {
    let left = Math.round(bytes)
    for (let segment = 1; left > 0 && !this.isFull(); segment++) {
      this.#send(up, Math.min(left, segmentBytes))
      left -= segmentBytes
      if (!this.#habits.datagrams && (segment % 2 === 0 || left <= 0)) this.#send(!up, 0)
    }
  }

  #send(up: boolean, payloadBytes: number, flag: Packet['flag'] = 'none'): void {
    this.wait(this.#random.exponential(0.0005))
    // A short payload cannot have more entropy than its length allows.
    const ceiling = payloadBytes ? Math.max(0, Math.log2(payloadBytes) - 0.2) : 0
    const entropyBits = Math.min(ceiling, 8, Math.max(0, this.#random.normal(this.#habits.entropy, 0.1)))
    this.packets.push({ timeS: this.#nowS, up, port: this.#port, payloadBytes, flag, entropyBits })
  }
}
