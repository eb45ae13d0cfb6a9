/**
 * A job's publishing as a process of its own, for tests that kill it or watch its system calls:
 *
 *   node --import tsx test/support/publisher.ts publish JOBDIR MODEL…
 *   node --import tsx test/support/publisher.ts recover JOBDIR
 *   node --import tsx test/support/publisher.ts check JOBDIR GLOB…
 *   node --import tsx test/support/publisher.ts start JOBDIR GLOB…
 *   node --import tsx test/support/publisher.ts rollback JOBDIR GENERATION
 *
 * Forked without arguments it says that it is ready, takes such commands as messages, and answers each.
 */
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { messageOf } from '../../lib/errors.ts'
import { generationOf } from '../../lib/models/generations.ts'
import { judgeModel } from '../../lib/models/judge.ts'
import { publish } from '../../lib/models/publish.ts'
import { recover } from '../../lib/models/recovery.ts'
import { rollBack } from '../../lib/models/rollback.ts'
import { checkPublished } from '../../lib/models.ts'
import { startAgain } from './publishing.ts'

type Command = [command: string, jobDir: string, ...names: string[]]
/** How a command ended: with 0, or with 1 and what was wrong. */
export type Answer = { code: number; said: string }

if (process.argv.length > 2) {
  const { code, said } = await answer(process.argv.slice(2) as Command)
  if (said) console.error(said)
  process.exitCode = code
} else {
  process.on('message', async (command: Command) => process.send!(await answer(command)))
  process.send!('ready')
}

async function answer(command: Command): Promise<Answer> {
  try {
    await carryOut(command)
    return { code: 0, said: '' }
  } catch (error) {
    return { code: 1, said: messageOf(error) }
  } finally {
    // The work that one failure has left running belongs to the command.
    while (process.getActiveResourcesInfo().some(name => name.startsWith('FSReq'))) await setImmediate()
  }
}

async function carryOut([command, jobDir, ...names]: Command): Promise<void> {
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
}
