const NOBODY = 65534

/** Run `body` without root's privileges; permissions are nothing to root. */
export async function asNobody<T>(body: () => Promise<T>): Promise<T> {
  if (process.geteuid?.() !== 0) return body()
  process.seteuid!(NOBODY)
  try {
    return await body()
  } finally {
    process.seteuid!(0)
  }
}
