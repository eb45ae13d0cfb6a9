import type { Packet } from './flow-simulator.ts'

/** Names of the features that `flowFeatures` measures, in its order; `_log` is the natural logarithm of one more. */
export const flowFeatureNames = [
  'duration_s_log',
  'packets_log',
  'up_packet_share',
  'up_bytes_log',
  'down_bytes_log',
  'up_byte_share',
  'up_payload_mean_log',
  'up_payload_variation',
  'down_payload_mean_log',
  'down_payload_variation',
  'empty_packet_share',
  'bursts_log',
  'burst_interval_s_log',
  'burst_interval_variation',
  'burst_up_bytes_log',
  'burst_up_bytes_variation',
  'burst_down_bytes_log',
  'burst_down_bytes_variation',
  'connections_log',
  'connections_per_burst_log',
  'unanswered_share',
  'reset_packet_share',
  'ports_log',
  'up_entropy_bits',
  'down_entropy_bits',
] as const

/** A longer pause, in seconds, ends a burst. */
const pauseS = 1

/** Describe a flow by its packets, at least one, in their order of time. */
export function flowFeatures(packets: readonly Packet[]): Float32Array {
  const up = packets.filter(packet => packet.up)
  const upPayloads = payloadsOf(up)
  const downPayloads = payloadsOf(packets.filter(packet => !packet.up))
  const upBytes = sum(upPayloads)
  const downBytes = sum(downPayloads)

  const bursts = burstsOf(packets)
  const starts = bursts.map(burst => burst[0]!.timeS)
  const intervals = starts.slice(1).map((start, index) => start - starts[index]!)
  const burstUpBytes = bursts.map(burst => sum(payloadsOf(burst.filter(packet => packet.up))))
  const burstDownBytes = bursts.map(burst => sum(payloadsOf(burst.filter(packet => !packet.up))))

  const connections = up.filter(({ flag }) => flag === 'syn').length
  const answers = packets.filter(packet => !packet.up && packet.flag === 'syn').length
  return Float32Array.from([
    Math.log1p(packets.at(-1)!.timeS - packets[0]!.timeS),
    Math.log1p(packets.length),
    up.length / packets.length,
    Math.log1p(upBytes),
    Math.log1p(downBytes),
    ratio(upBytes, upBytes + downBytes),
    Math.log1p(mean(upPayloads)),
    variation(upPayloads),
    Math.log1p(mean(downPayloads)),
    variation(downPayloads),
    1 - (upPayloads.length + downPayloads.length) / packets.length,
    Math.log1p(bursts.length),
    Math.log1p(mean(intervals)),
    variation(intervals),
    Math.log1p(mean(burstUpBytes)),
    variation(burstUpBytes),
    Math.log1p(mean(burstDownBytes)),
    variation(burstDownBytes),
    Math.log1p(connections),
    Math.log1p(connections / bursts.length),
    1 - ratio(answers, connections, 1),
    packets.filter(({ flag }) => flag === 'rst').length / packets.length,
    Math.log1p(new Set(packets.map(({ port }) => port)).size),
    mean(entropiesOf(packets, true)),
    mean(entropiesOf(packets, false)),
  ])
}

function burstsOf(packets: readonly Packet[]): Packet[][] {
  const bursts: Packet[][] = []
  let lastS = Number.NEGATIVE_INFINITY
  for (const packet of packets) {
    if (packet.timeS - lastS > pauseS) bursts.push([])
    bursts.at(-1)!.push(packet)
    lastS = packet.timeS
  }
  return bursts
}

/** List the sizes of the payloads that are not empty. */
function payloadsOf(packets: readonly Packet[]): number[] {
  return packets.map(({ payloadBytes }) => payloadBytes).filter(bytes => bytes > 0)
}

function entropiesOf(packets: readonly Packet[], up: boolean): number[] {
  return packets
    .filter(packet => packet.up === up && packet.payloadBytes > 0)
    .map(({ entropyBits }) => entropyBits)
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function mean(values: readonly number[]): number {
  return ratio(sum(values), values.length)
}

/** Compute the standard deviation over the mean. */
function variation(values: readonly number[]): number {
  const middle = mean(values)
  return ratio(Math.sqrt(mean(values.map(value => (value - middle) ** 2))), middle)
}

function ratio(part: number, whole: number, otherwise = 0): number {
  return whole > 0 ? part / whole : otherwise
}
