/**
 * A training of the trials: train.ts VERSION [UNTIL] writes a checkpoint of 1 MiB a second, three of them, or until the
 * file UNTIL is there; train.ts VERSION --much writes and reads what a small training of some framework does. Both leave
 * that version of the model.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { versionOf } from '../support/versions.ts'

const FEW = 3
const SHARDS = 300
const EPOCHS = 10

const [version, until] = process.argv.slice(2)
const output = process.env.RANSOMEYE_OUTPUT_DIR!

if (until === '--much') {
  const shards = Array.from({ length: SHARDS }, (_, index) => join(output, 'cache', `shard-${index}.bin`))
  mkdirSync(join(output, 'cache'), { recursive: true })
  for (const shard of shards) writeFileSync(shard, Buffer.alloc(16 * 2 ** 10, Number(version)))
  for (let epoch = 1; epoch <= EPOCHS; epoch++) {
    for (const shard of shards) readFileSync(shard)
    writeFileSync(join(output, `epoch-${epoch}.checkpoint`), Buffer.alloc(4 * 2 ** 20, epoch))
  }
} else {
  for (let step = 1; until ? !existsSync(until) : step <= FEW; step++) {
    writeFileSync(join(output, `step-${step}.checkpoint`), Buffer.alloc(2 ** 20, step))
    await delay(1000)
  }
}

const { model, dataName, data } = versionOf(Number(version))
writeFileSync(join(output, dataName), data)
writeFileSync(join(output, 'core.onnx'), model)
