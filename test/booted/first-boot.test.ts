import { bootTwice } from '../support/boot-twice.ts'
import { withBoot } from '../support/booted-machine.ts'
import { test } from '../support/test.ts'

withBoot(
  'Debian 13 with the package boots into three valid models, and its next boot leaves them alone',
  () => bootTwice(13),
)

test.run()
