/** Exit status of every kind of failure; boot scripts and fleet tools branch on these. */
const exitCodes = {
  'training-failed': 1,
  'quota-exceeded': 2,
  'no-space': 3,
  storage: 3,
  'not-accepted': 4,
  usage: 64,
  locked: 75,
  unavailable: 75,
  config: 78,
  sighup: 129,
  sigint: 130,
  sigterm: 143,
} as const

export type ErrorCode = keyof typeof exitCodes

/** Is it an exit status by which this program fails? */
export function isOwnExitCode(exitCode: number): boolean {
  return Object.values<number>(exitCodes).includes(exitCode)
}

/** Charged bytes against allowed bytes. */
export type Usage = { usedBytes: number; limitBytes: number }

/**
 * A failure that an operator can act on: its message names what could not be done, the value, and what
 * would help. Anything else that is thrown is a defect of this program.
 *
 * @example throw new TrainerError('no-space', 'Cannot start core: 41 MiB free on /var/lib, 64 MiB needed')
 */
export class TrainerError extends Error {
  override readonly name = 'TrainerError'
  readonly code: ErrorCode
  /** The figures of a limit that the job itself was measured to violate, its quota or what the disk holds of it. */
  readonly usage: Usage | undefined
  /** The kernel refused the growth: nothing is above the limit, and nothing has to be deleted. */
  readonly isRefusal: boolean
  /** Its cause is known, and no checkpoint: a training missed what the run had pruned, or its model is what is wrong. */
  readonly sparesCheckpoint: boolean
  /** Its training was ended for what others have done: it may begin again. */
  readonly isMistake: boolean

  constructor(
    code: ErrorCode,
    message: string,
    options?: {
      cause?: unknown
      usage?: Usage
      isRefusal?: boolean
      sparesCheckpoint?: boolean
      isMistake?: boolean
    },
  ) {
    super(message, options)
    this.code = code
    this.usage = options?.usage
    this.isRefusal = options?.isRefusal ?? false
    this.sparesCheckpoint = options?.sparesCheckpoint ?? false
    this.isMistake = options?.isMistake ?? false
  }

  /** The process's exit status for this kind of failure. */
  get exitCode(): number {
    return exitCodes[this.code]
  }
}

/** Does `error` carry one of Node's errno codes, such as `ENOENT`? */
export function isErrno(error: unknown, ...codes: string[]): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}

/** Is it a refusal of the system, such as of a full disk? */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}

/** Return the line that says what went wrong, for any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
