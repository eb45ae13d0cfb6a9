import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { commandFor } from '../../lib/system/start-command.ts'
import { root } from '../support/places.ts'
import { test } from '../support/test.ts'

test('commandFor() names the models folder, and the quotas where they are not those of this project', () => {
  const modelsDir = '/srv/my models'

  const usual = commandFor({ modelsDir, quotasFile: join(root, 'quotas.json') }, 'tasks.ts', 'core')
  const other = commandFor({ modelsDir, quotasFile: '/etc/quotas.json' }, 'tasks.ts', 'core')

  assert.is(usual, `node --import tsx tasks.ts core --models-dir '/srv/my models'`)
  assert.is(other, `${usual} --quotas /etc/quotas.json`)
})

test.run()
