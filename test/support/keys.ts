import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { writeFileSync } from 'node:fs'

/** A pair of RSA keys as PEM. */
export function rsaPair(modulusLength = 3072): { publicKey: string; privateKey: string } {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength })
  return { publicKey: publicPem(publicKey), privateKey: privatePem(privateKey) }
}

/** Make private keys that do not sign bundles, as PEM. */
export function wrongKeys() {
  const locked = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  return {
    ec: privatePem(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey),
    pss: privatePem(generateKeyPairSync('rsa-pss', { modulusLength: 3072 }).privateKey),
    locked: privatePem(locked, { cipher: 'aes-256-cbc', passphrase: 'secret' }),
  }
}

/** Write a key's PEM as a file that only its owner can read. */
export function writeKey(path: string, pem: string): string {
  writeFileSync(path, pem, { mode: 0o600 })
  return path
}

function publicPem(key: KeyObject): string {
  return key.export({ type: 'spki', format: 'pem' }).toString()
}

function privatePem(key: KeyObject, lock?: { cipher: string; passphrase: string }): string {
  return key.export({ type: 'pkcs8', format: 'pem', ...lock }).toString()
}
