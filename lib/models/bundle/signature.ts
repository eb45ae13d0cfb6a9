import { constants, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { closeSync, readFileSync } from 'node:fs'
import { isErrno, TrainerError } from '../../errors.ts'
import { openNamed, reasonOf } from '../../system/plain-file.ts'

const MIN_BITS = 3072
const MAX_FILE_BYTES = 64 * 1024
const NEW_KEY = 'openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out private.pem'

/**
 * Read the private key that signs bundles: PEM, RSA of at least 3072 bits, without a passphrase, in a file that only
 * its owner can read.
 *
 * @throws {TrainerError} `usage`, with the key's fault and what to do
 */
export function readPrivateKey(file: string): KeyObject {
  return readKey(file, 'private', createPrivateKey)
}

/**
 * Read the public key that checks signatures: PEM, RSA of at least 3072 bits. A private key is refused: it should not
 * be where bundles are checked.
 *
 * @throws {TrainerError} `usage`, with the key's fault and what to do
 */
export function readPublicKey(file: string): KeyObject {
  return readKey(file, 'public', createPublicKey)
}

/** Sign by RSA-PSS with SHA-256, MGF1 with SHA-256 and the longest salt. Returns the signature as base64. */
export function signText(text: string, key: KeyObject): string {
  const saltLength = constants.RSA_PSS_SALTLEN_MAX_SIGN
  return sign('sha256', Buffer.from(text), {
    key,
    saltLength,
    padding: constants.RSA_PKCS1_PSS_PADDING,
  }).toString('base64')
}

/** Is this the signature that {@link signText} makes of these bytes with the other half of the key? */
export function isSigned(bytes: Buffer, signature: string, key: KeyObject): boolean {
  // State the salt's length as a number: OpenSSL's name for the longest accepts any length when it verifies.
  const saltLength = Math.ceil((bitsOf(key) - 1) / 8) - 32 - 2
  const options = { key, saltLength, padding: constants.RSA_PKCS1_PSS_PADDING }
  return verify('sha256', bytes, options, Buffer.from(signature, 'base64'))
}

type Half = 'private' | 'public'

function readKey(file: string, half: Half, create: (pem: string) => KeyObject): KeyObject {
  const refuse = (reason: string, cause?: unknown) =>
    new TrainerError('usage', `Cannot use the ${half} key ${file}: ${reason}`, { cause })
  const { pem, mode } = readPem(file, half, refuse)
  const label = /-----BEGIN ([A-Z0-9 ]+)-----/.exec(pem)?.[1]
  if (!label) throw refuse(`it is not a PEM file; ${remedies[half]}`)
  if (pem.includes('ENCRYPTED')) {
    throw refuse(`it needs a passphrase; write it without one: openssl pkey -in ${file} -out FILE`)
  }
  if (!label.endsWith(`${half.toUpperCase()} KEY`)) throw refuse(`it begins with ${label}; ${remedies[half]}`)
  if (half === 'private' && mode & 0o077) {
    throw refuse(`others than its owner have access (mode ${mode.toString(8)}); run chmod 600 ${file}`)
  }

  const key = parseKey(pem, create, refuse)
  if (key.asymmetricKeyType !== 'rsa') {
    throw refuse(`it is of type ${key.asymmetricKeyType}, expected rsa; make one: ${NEW_KEY}`)
  }
  if (bitsOf(key) < MIN_BITS) {
    throw refuse(`it has ${bitsOf(key)} bits, expected at least ${MIN_BITS}; make one: ${NEW_KEY}`)
  }
  return key
}

type Refuse = (reason: string, cause?: unknown) => TrainerError

const remedies: Record<Half, string> = {
  private: `name the private half of the key; a new one is made by ${NEW_KEY}`,
  public: 'name the public half, which is made by openssl pkey -in private.pem -pubout -out public.pem',
}

function readPem(file: string, half: Half, refuse: Refuse): { pem: string; mode: number } {
  const { fd, stats } = openKey(file, half, refuse)
  try {
    if (stats.size > MAX_FILE_BYTES) throw refuse(`it is not a PEM file; ${remedies[half]}`)
    return { pem: readFileSync(fd, 'latin1'), mode: Number(stats.mode) & 0o777 }
  } finally {
    closeSync(fd)
  }
}

function openKey(file: string, half: Half, refuse: Refuse): ReturnType<typeof openNamed> {
  try {
    return openNamed(file)
  } catch (cause) {
    const remedy = isErrno(cause, 'EACCES', 'EPERM') ? 'this user must be able to read it' : remedies[half]
    throw refuse(`it ${reasonOf(cause)}; ${remedy}`, cause)
  }
}

function parseKey(pem: string, create: (pem: string) => KeyObject, refuse: Refuse): KeyObject {
  try {
    return create(pem)
  } catch (cause) {
    throw refuse(`it is damaged, or of a kind that is not known; make one: ${NEW_KEY}`, cause)
  }
}

function bitsOf(key: KeyObject): number {
  return key.asymmetricKeyDetails?.modulusLength ?? 0
}
