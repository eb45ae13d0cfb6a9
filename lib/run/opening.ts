import { existsSync } from 'node:fs'
import { TrainerError } from '../errors.ts'
import type { Quotas } from '../quotas.ts'
import { chooseModelsDir, openModelsDir } from '../settings/folders.ts'
import { stateDirOf } from '../settings/layout.ts'
import { packageVersion } from '../settings/options.ts'
import { readQuotas } from '../settings/quotas-file.ts'
import { assertOwnFolder, isAnothersFolder } from '../system/owner.ts'
import { unmountedAbove } from '../system/unmounted.ts'
import { whereabouts } from '../system/whereabouts.ts'
import { quoteWord } from '../text.ts'
import type { Command } from './command-line.ts'
import { Journal } from './journal.ts'
import { type Lock, takeLock } from './lock.ts'
import { findHolder } from './lock-holders.ts'

/** The quotas, the folder and the lock of a run; a dry run has no lock, since it starts nothing. */
export type Opening = {
  quotas: Quotas
  modelsDir: string
  lock: Lock | undefined
  /** What makes it doubtful that this is the folder that was meant. */
  doubts: string[]
}

/**
 * Read the quotas, open the models folder, take the lock.
 *
 * @throws {TrainerError} `config`, `usage` for another user's folder, `storage`, `locked`. The journal and the metrics
 * note a run that could not start, where they can be written; the reason of `signal`
 */
export async function open(command: Command, signal: AbortSignal): Promise<Opening> {
  const { dryRun } = command
  // The quotas may name it too, once they are read.
  let modelsDir = command.modelsDir ?? process.env.RANSOMEYE_MODELS_DIR
  try {
    const quotas = readQuotas(command.quotasFile)
    modelsDir = chooseModelsDir(command.modelsDir, quotas.modelsDir)
    if (!dryRun) assertOwnFolder(modelsDir, process.argv.slice(2))
    modelsDir = openModelsDir(modelsDir, dryRun, command.needsModelsDir)
    const doubts = doubtsOf(command, quotas, modelsDir)
    const lock = dryRun ? undefined : await takeLock(stateDirOf(modelsDir), signal)
    return { quotas, modelsDir, lock, doubts }
  } catch (error) {
    if (command.trains && !dryRun && modelsDir) await note(command, modelsDir, error)
    throw error
  }
}

function doubtsOf(command: Command, quotas: Quotas, modelsDir: string): string[] {
  const doubts: string[] = []
  const { modelsDir: asked } = quotas
  const isOverruled =
    asked !== undefined && chooseModelsDir(undefined, asked) !== chooseModelsDir(asked, undefined)
  if (isOverruled && command.modelsDir === undefined) {
    doubts.push(
      `modelsDir in quotas.json is ${asked}, and has no effect because RANSOMEYE_MODELS_DIR is set; ` +
        'for a service that is in its unit: systemctl cat ransomeye-trainer',
    )
  }
  const away = unmountedAbove(modelsDir)
  if (away !== undefined) {
    doubts.push(
      `/etc/fstab has a filesystem for ${away}, and nothing is mounted there: what is published now is hidden once it is; ` +
        `mount it: mount ${quoteWord(away)}`,
    )
  }
  return doubts
}

/**
 * Note a run that could not start. Wrong usage is not noted: it says nothing about this machine. Nor is a held lock: the
 * last entry must stay that of the run that holds it.
 */
async function note({ jobs }: Command, modelsDir: string, error: unknown): Promise<void> {
  if (!(error instanceof TrainerError) || !['config', 'storage'].includes(error.code)) return
  if (!existsSync(modelsDir) || isAnothersFolder(modelsDir)) return
  const { noteFailedStart } = await import('./metrics/page.ts')
  try {
    const stateDir = stateDirOf(openModelsDir(modelsDir, false))
    if (findHolder(stateDir)) return
    const { exitCode } = error
    const message = error.message.replaceAll('\n', '; ')
    const journal = new Journal(stateDir)
    const place = whereabouts()
    journal.emit({ event: 'run.start', modelsDir, jobs, version: packageVersion(), ...place })
    journal.emit({ event: 'run.done', exitCode, seconds: 0, message, ...place })
    journal.close()
    await noteFailedStart(stateDir, exitCode)
  } catch {
    // The caller reports the error; that it cannot be noted often has the same cause.
  }
}
