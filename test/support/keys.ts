import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './places.ts'

/**
 * A pair of RSA keys as PEM, which only tests know: `one` and `other` have 3072 bits, `short` has 2048. They are kept,
 * because to make such a pair takes half a second of processor.
 */
export function rsaPair(name: 'one' | 'other' | 'short' = 'one'): { publicKey: string; privateKey: string } {
  const privateKey = keptKey(name)
  const publicKey = createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString()
  return { publicKey, privateKey }
}

/** Private keys that do not sign bundles, as PEM. */
export function wrongKeys() {
  return {
    ec: privatePem(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey),
    pss: keptKey('pss'),
    locked: privatePem(createPrivateKey(keptKey('one')), { cipher: 'aes-256-cbc', passphrase: 'secret' }),
  }
}

/** Write a key's PEM as a file that only its owner can read. */
export function writeKey(path: string, pem: string): string {
  writeFileSync(path, pem, { mode: 0o600 })
  return path
}

function keptKey(name: string): string {
  return readFileSync(join(root, 'test/fixtures/keys', `${name}.pem`), 'utf8')
}

function privatePem(key: KeyObject, lock?: { cipher: string; passphrase: string }): string {
  return key.export({ type: 'pkcs8', format: 'pem', ...lock }).toString()
}
