/**
 * A job's publishing as a process of its own, for tests that kill it or watch its system calls:
 *
 *   node --import tsx test/support/publisher.ts publish JOBDIR MODEL…
 *   node --import tsx test/support/publisher.ts recover JOBDIR
 *   node --import tsx test/support/publisher.ts check JOBDIR GLOB…
 *   node --import tsx test/support/publisher.ts start JOBDIR GLOB…
 *   node --import tsx test/support/publisher.ts rollback JOBDIR GENERATION
 */
import { join } from 'node:path'
import { messageOf } from '../../lib/errors.ts'
import { generationOf } from '../../lib/models/generations.ts'
import { judgeModel } from '../../lib/models/judge.ts'
import { publish } from '../../lib/models/publish.ts'
import { recover } from '../../lib/models/recovery.ts'
import { rollBack } from '../../lib/models/rollback.ts'
import { checkPublished } from '../../lib/models.ts'
import { startAgain } from './publishing.ts'

const [command, jobDir, ...names] = process.argv.slice(2) as [string, string, ...string[]]
try {
  if (command === 'check') {
    console.log(JSON.stringify(await checkPublished(jobDir, names)))
  } else if (command === 'recover') {
    await recover(jobDir)
  } else if (command === 'rollback') {
    await rollBack('core', jobDir, generationOf(jobDir, Number(names[0])))
  } else if (command === 'start') {
    await startAgain(jobDir, names)
  } else {
    const models = await Promise.all(names.map(name => judgeModel(join(jobDir, 'work'), name)))
    const facts = { globs: ['**/*.onnx'], trainedAt: new Date(), seconds: 1, reported: {} }
    await publish(jobDir, 'core', models, facts, { warn: console.log })
  }
} catch (error) {
  console.error(messageOf(error))
  process.exitCode = 1
}
