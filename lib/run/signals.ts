import { TrainerError } from '../errors.ts'

/**
 * Turn SIGINT and SIGTERM into an abort whose reason is the error to end with. A second signal changes nothing:
 * the training is being ended already, within its grace.
 */
export function listenForSignals(): { signal: AbortSignal; close: () => void } {
  const controller = new AbortController()
  const onSigint = () => controller.abort(new TrainerError('sigint', 'interrupted by SIGINT'))
  const onSigterm = () => controller.abort(new TrainerError('sigterm', 'interrupted by SIGTERM'))
  process.on('SIGINT', onSigint)
  process.on('SIGTERM', onSigterm)
  return {
    signal: controller.signal,
    close: () => {
      process.off('SIGINT', onSigint)
      process.off('SIGTERM', onSigterm)
    },
  }
}
