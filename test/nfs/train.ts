/**
 * A training of the trials; it leaves one version of a model.
 *
 *   train.ts OUTPUT VERSION           writes three checkpoints of 1 MiB, one a second
 *   train.ts OUTPUT VERSION UNTIL     writes them until the file UNTIL is there
 *   train.ts OUTPUT VERSION --much    reads 300 files of 16 KiB ten times, and writes ten checkpoints of 4 MiB
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { versionOf } from '../support/versions.ts'

const FEW = 3
const SHARDS = 300
const EPOCHS = 10

const [output, version, until] = process.argv.slice(2) as [string, string, string?]

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
