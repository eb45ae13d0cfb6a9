/** Bytes in a block, the piece of a file that the agent sees while it is written. */
export const blockBytes = 4096

/** Names of the features that `blockFeatures` measures, in its order. */
export const blockFeatureNames = [
  'entropy_bits',
  'chi_square_log2',
  'serial_correlation',
  'monte_carlo_pi_error',
  'printable_share',
  'high_byte_share',
  'zero_share',
  'mean_byte',
  'longest_run_log2',
  'one_bits_deviation',
  'bit_windows_2_log2',
  'bit_windows_4_log2',
  'bit_windows_6_log2',
  'bit_windows_8_log2',
  'bit_windows_10_log2',
  'bit_windows_12_log2',
  'bit_correlation_near_log2',
  'bit_correlation_far_log2',
] as const

const widestWindow = 12
const mostDeviations = 12

/**
 * Measure statistics of a block's bytes and of its bits. A compressor's codes do not end at byte borders: windows of 2
 * to 12 bits that slide by one bit give it away, and so does the agreement of bits 1 to 24 apart. These statistics are
 * 0 on average for random data, far above 0 for Huffman codes, and invisible to byte entropy.
 */
export function blockFeatures(block: Uint8Array): Float32Array {
  return Float32Array.from([...byteStatistics(block), ...bitStatistics(block)])
}

function byteStatistics(block: Uint8Array): number[] {
  const counts = new Uint32Array(256)
  for (const byte of block) counts[byte]!++
  const size = block.length
  let entropy = 0
  let sum = 0
  let printable = 0
  let high = 0
  counts.forEach((count, byte) => {
    if (count) entropy -= (count / size) * Math.log2(count / size)
    sum += count * byte
    if ((byte >= 32 && byte < 127) || byte === 9 || byte === 10 || byte === 13) printable += count
    if (byte > 127) high += count
  })
  const mean = sum / size
  return [
    entropy,
    excessLog2(chiSquare(counts, size), 255),
    serialCorrelation(block, mean),
    monteCarloPi(block) - Math.PI,
    printable / size,
    high / size,
    counts[0]! / size,
    mean,
    Math.log2(longestRun(block)),
  ]
}

function bitStatistics(block: Uint8Array): number[] {
  const bitCount = block.length * 8
  const chiSquares: number[] = []
  let counts = slidingWindows(block)
  for (let width = widestWindow; width > 1; width--) {
    if (width % 2 === 0) chiSquares.unshift(excessLog2(chiSquare(counts, bitCount), 2 ** width))
    counts = withoutLastBit(counts)
  }
  const deviation = (counts[1]! - counts[0]!) / Math.sqrt(bitCount)
  return [clip(deviation), ...chiSquares, ...bitCorrelations(block)]
}

/** Count the windows of `widestWindow` bits, at every bit, least significant bit of a byte first. */
function slidingWindows(block: Uint8Array): Uint32Array {
  const counts = new Uint32Array(2 ** widestWindow)
  const mask = counts.length - 1
  let window = 0
  for (const byte of block) {
    for (let bit = 0; bit < 8; bit++) {
      window = ((window << 1) | ((byte >> bit) & 1)) & mask
      counts[window]!++
    }
  }
  return counts
}

function withoutLastBit(counts: Uint32Array): Uint32Array {
  const shorter = new Uint32Array(counts.length / 2)
  for (let at = 0; at < shorter.length; at++) shorter[at] = counts[2 * at]! + counts[2 * at + 1]!
  return shorter
}

/** Measure the mean square agreement of bits 1 to 8 apart, and 9 to 24 apart. Random bits have 1. */
function bitCorrelations(block: Uint8Array): [near: number, far: number] {
  const words = new Uint32Array(block.length / 4)
  for (let at = 0; at < words.length; at++) words[at] = littleEndian(block, at * 4)
  const compared = (words.length - 1) * 32
  let near = 0
  let far = 0
  for (let distance = 1; distance <= 24; distance++) {
    let differing = 0
    for (let at = 0; at < words.length - 1; at++) {
      const shifted = (words[at]! >>> distance) | (words[at + 1]! << (32 - distance))
      differing += countOnes(words[at]! ^ shifted)
    }
    const square = clip((compared - 2 * differing) / Math.sqrt(compared)) ** 2
    if (distance <= 8) near += square / 8
    else far += square / 16
  }
  return [Math.log2(near + 0.01), Math.log2(far + 0.01)]
}

function littleEndian(block: Uint8Array, at: number): number {
  return block[at]! | (block[at + 1]! << 8) | (block[at + 2]! << 16) | (block[at + 3]! << 24)
}

function countOnes(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555)
  const nibbles = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333)
  return Math.imul((nibbles + (nibbles >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}

/** Measure the distance of the counts from being equal. */
function chiSquare(counts: Uint32Array, total: number): number {
  const expected = total / counts.length
  let sum = 0
  for (let at = 0; at < counts.length; at++) sum += (counts[at]! - expected) ** 2
  return sum / expected
}

function excessLog2(chiSquare: number, usual: number): number {
  return Math.log2((chiSquare + 1) / usual)
}

/** Correlate each byte with the next one, from -1 to 1. A block of one repeated byte counts as 1. */
function serialCorrelation(block: Uint8Array, mean: number): number {
  let products = 0
  let squares = 0
  for (let at = 0; at < block.length; at++) {
    const deviation = block[at]! - mean
    squares += deviation * deviation
    products += deviation * ((block[at + 1] ?? block[0]!) - mean)
  }
  return squares > 0 ? products / squares : 1
}

/** Estimate pi: four times the share of points inside the circle, each point made of six bytes. */
function monteCarloPi(block: Uint8Array): number {
  const points = Math.floor(block.length / 6)
  let inside = 0
  for (let at = 0; at < points * 6; at += 6) {
    const x = (block[at]! * 65536 + block[at + 1]! * 256 + block[at + 2]!) / 2 ** 24
    const y = (block[at + 3]! * 65536 + block[at + 4]! * 256 + block[at + 5]!) / 2 ** 24
    if (x * x + y * y <= 1) inside++
  }
  return (4 * inside) / points
}

function longestRun(block: Uint8Array): number {
  let longest = 1
  for (let at = 1, run = 1; at < block.length; at++) {
    run = block[at] === block[at - 1] ? run + 1 : 1
    if (run > longest) longest = run
  }
  return longest
}

function clip(deviations: number): number {
  return Math.max(-mostDeviations, Math.min(mostDeviations, deviations))
}
