import { constants, createPrivateKey, createPublicKey, sign } from 'node:crypto'
import { chmodSync, symlinkSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { isSigned, readPrivateKey, readPublicKey, signText } from '../../lib/models/bundle/signature.ts'
import { failure } from '../support/failure.ts'
import { rsaPair, writeKey, wrongKeys } from '../support/keys.ts'
import { sandbox } from '../support/sandbox.ts'
import { test } from '../support/test.ts'
import { asNobody } from '../support/unprivileged.ts'

const { publicKey, privateKey } = rsaPair()
const { ec, pss, locked } = wrongKeys()

for (const [what, pem, reason] of [
  ['an EC key', ec, /of type ec, expected rsa; make one: openssl/],
  ['a key for RSA-PSS alone', pss, /of type rsa-pss, expected rsa/],
  ['a key that needs a passphrase', locked, /needs a passphrase; write it without one: openssl pkey/],
  ['an RSA key of 2048 bits', rsaPair('short').privateKey, /has 2048 bits, expected at least 3072/],
  ['the public half', publicKey, /begins with PUBLIC KEY; name the private half/],
  [
    'a certificate',
    '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
    /begins with CERTIFICATE/,
  ],
  ['a damaged key', privateKey.replace(/\n..../, '\nAAAA'), /is damaged, or of a kind that is not known/],
  ['not PEM', 'ssh-rsa AAAA', /is not a PEM file/],
  ['nothing', '', /is not a PEM file/],
] as const) {
  test(`readPrivateKey() refuses ${what}, and says what to do`, async () => {
    await using box = await sandbox()
    const file = writeKey(box.path('key.pem'), pem)

    const error = await failure(async () => readPrivateKey(file))

    assert.is(error.exitCode, 64)
    assert.match(error.message, reason)
    assert.match(error.message, `Cannot use the private key ${file}`)
  })
}

for (const mode of [0o640, 0o604, 0o620, 0o602]) {
  test(`readPrivateKey() refuses a key of mode ${mode.toString(8)}: others have access to it`, async () => {
    await using box = await sandbox()
    const file = writeKey(box.path('key.pem'), privateKey)
    chmodSync(file, mode)

    const error = await failure(async () => readPrivateKey(file))

    assert.match(error.message, `mode ${mode.toString(8)}); run chmod 600 ${file}`)
  })
}

test('readPrivateKey() looks at the mode of the file that a link leads to', async () => {
  await using box = await sandbox()
  const file = writeKey(box.path('key.pem'), privateKey)
  symlinkSync(file, box.path('link.pem'))

  const key = readPrivateKey(box.path('link.pem'))
  chmodSync(file, 0o644)
  const error = await failure(async () => readPrivateKey(box.path('link.pem')))

  assert.is(key.type, 'private')
  assert.match(error.message, 'mode 644')
})

test('readPublicKey() refuses a private key, which should not be where bundles are checked', async () => {
  await using box = await sandbox()
  const file = writeKey(box.path('key.pem'), privateKey)

  const error = await failure(async () => readPublicKey(file))

  assert.match(error.message, /begins with PRIVATE KEY; name the public half.*openssl pkey/)
})

test('readPrivateKey() says what to do when the key is missing, or not for this user to read', async () => {
  await using box = await sandbox()
  const file = writeKey(box.path('key.pem'), privateKey)
  chmodSync(box.dir, 0o755)
  chmodSync(file, 0)

  const missing = await failure(async () => readPrivateKey(box.path('none.pem')))
  const forbidden = await asNobody(() => failure(async () => readPrivateKey(file)))

  assert.match(
    missing.message,
    /ENOENT.*; name the private half of the key; a new one is made by openssl genpkey/,
  )
  assert.match(forbidden.message, /EACCES.*; this user must be able to read it$/)
})

test('readPublicKey() refuses a missing file, a folder and a short key', async () => {
  await using box = await sandbox({ 'short.pem': rsaPair('short').publicKey })

  const files = ['missing.pem', '.', 'short.pem'].map(name => box.path(name))

  const errors = await Promise.all(files.map(file => failure(async () => readPublicKey(file))))

  assert.match(
    errors[0]!.message,
    /it cannot be read \(ENOENT: .*\); name the public half, which is made by openssl/,
  )
  assert.match(errors[1]!.message, 'it is a folder, not a regular file; name the public half')
  assert.match(errors[2]!.message, 'has 2048 bits')
})

test('isSigned() accepts what signText() makes, and nothing else', () => {
  const key = createPublicKey(publicKey)
  const signature = signText('text', createPrivateKey(privateKey))

  assert.ok(isSigned(Buffer.from('text'), signature, key))
  assert.not(isSigned(Buffer.from('Text'), signature, key))
  assert.not(
    isSigned(
      Buffer.from('text'),
      signature.replace(/^./, it => (it === 'A' ? 'B' : 'A')),
      key,
    ),
  )
  assert.not(isSigned(Buffer.from('text'), '', key))
  assert.not(isSigned(Buffer.from('text'), signature, createPublicKey(rsaPair('other').publicKey)))
})

for (const [what, saltLength, padding] of [
  ['a shorter salt', 32, constants.RSA_PKCS1_PSS_PADDING],
  ['the older padding', undefined, constants.RSA_PKCS1_PADDING],
] as const) {
  test(`isSigned() refuses a signature with ${what}, as consumers do`, () => {
    const options = { key: privateKey, padding, ...(saltLength && { saltLength }) }

    const signature = sign('sha256', Buffer.from('text'), options).toString('base64')

    assert.not(isSigned(Buffer.from('text'), signature, createPublicKey(publicKey)))
  })
}

test.run()
