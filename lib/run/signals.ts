import { TrainerError } from '../errors.ts'

const signals = { SIGHUP: 'sighup', SIGINT: 'sigint', SIGTERM: 'sigterm' } as const

/**
 * Turn SIGHUP (the terminal is gone), SIGINT and SIGTERM into an abort whose reason is the error to end with. A second
 * signal changes nothing: the training is being ended already, within its grace.
 */
export function listenForSignals(): { signal: AbortSignal; close: () => void } {
  const controller = new AbortController()
  const listeners = Object.entries(signals).map(([name, code]) => {
    const interrupt = () => controller.abort(new TrainerError(code, `interrupted by ${name}`))
    process.on(name, interrupt)
    return () => process.off(name, interrupt)
  })
  return {
    signal: controller.signal,
    close: () => {
      for (const remove of listeners) remove()
      if (controller.signal.reason?.code !== 'sighup') return
      // End by the signal itself: at an ordinary end Node.js aborts, because it cannot restore a terminal that is gone.
      process.removeAllListeners('SIGHUP') // listr2 has one too
      process.kill(process.pid, 'SIGHUP')
    },
  }
}
