import { bootTwice } from '../support/boot-twice.ts'
import { withBoot } from '../support/booted-machine.ts'
import { test } from '../support/test.ts'

withBoot(
  'Debian 12 with the package boots into three valid models, and its next boot leaves them alone',
  () => bootTwice(12),
)

test.run()
