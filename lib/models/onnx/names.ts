import { posix } from 'node:path'
import { type Bytes, escapeBytes } from '../../system/bytes.ts'
import { UnusableFile } from '../../system/plain-file.ts'
import type { WireReader } from '../protobuf.ts'
import type { Level } from './level.ts'
import { isElementType } from './tensor.ts'

/** Names of operators, of every exporter; what has other characters is damaged. */
const OPERATOR = /^[A-Za-z_][\w.:+<>~-]*$/

/** Names of ONNX's own operators. */
const PLAIN_OPERATOR = /^[A-Za-z]\w*$/
/** Names of attributes, of whatever operator. */
const ATTRIBUTE = /^[A-Za-z_][\w.:-]*$/

/** A node that puts together what others make has thousands; a file made to be slow has more. */
const MOST_NAMES = 65_536

/** One manifest is sure to have room for so many files; a model with more could not be published. */
const MOST_DATA_FILES = 10_000

/** The field of an attribute that holds its value, by the number of its type. */
const valueFields = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 22, 23, 14, 15]
/** Types of which a writer may leave out a value that is zero or empty. */
const mayBeEmpty = [1, 2, 3, 6, 7, 8, 9, 10, 14]

/** An entry that says where external data are. */
const placeKeys = ['location', 'offset', 'length']

/** Collects the names of a model while its file is walked: what gives them, and what uses them. */
export class Names {
  irVersion = 0
  readonly externalData = new Map<string, number>()
  readonly #declared = new Set<string>()
  readonly #used = new Set<string>()

  /** Take what a field says of the message that it is in. */
  take(reader: WireReader, level: Level): void {
    const { field } = reader
    switch (level.message) {
      case 'model':
        // Negative numbers arrive as unsigned ones beyond 2^63.
        if (field === 1 && Number.isSafeInteger(reader.value)) this.irVersion = reader.value
        return
      case 'opset':
        if (field === 1) level.name = domainOf(reader.bytes())
        else level.number = reader.value
        return
      case 'node':
        takeOfNode(reader, level)
        return
      case 'function':
        if (field === 4) level.scope!.addInput(reader.bytes())
        else if (field === 5) level.scope!.addOutput(reader.bytes())
        return
      case 'value':
      case 'inner value':
        if (field === 1) level.name = reader.bytes()
        return
      case 'attribute':
        if (field === 1 || field === 21) level.name = reader.bytes()
        else if (field === 20) level.number = reader.value
        return
      case 'tensor type':
        level.number = reader.value
        return
      case 'place':
        if (field === 1) level.name = reader.bytes()
        else level.value = reader.text()
        return
      case 'tensor':
        level.tensor!.take(reader)
    }
  }

  /** Judge a message that has been read to its end, inside the message `outer`. */
  close(level: Level, outer: Level | undefined): void {
    switch (level.message) {
      case 'model':
        this.#closeModel(level)
        return
      case 'opset':
        if (level.number < 1 || !Number.isSafeInteger(level.number)) {
          throw new UnusableFile('has no operator set version')
        }
        if (outer!.message === 'model') this.#declared.add(level.name)
        else outer!.declared.add(level.name)
        return
      case 'node':
        if (!level.name) throw new UnusableFile('has no operator in one of its nodes')
        if (level.value === '' && !PLAIN_OPERATOR.test(level.name)) throw damagedOperator()
        outer!.scope!.addNode(level.inputs ?? [], level.outputs ?? [])
        outer!.handOn({ inputs: undefined, used: level.used })
        outer!.use(level.value)
        return
      case 'attribute':
        closeAttribute(level)
        outer!.handOn(level)
        return
      case 'value':
        if (level.name && !level.has(2))
          throw new UnusableFile(`has no type for its input or output ${escapeBytes(level.name)}`)
        closeValue(level, outer!)
        return
      case 'inner value':
        closeValue(level, outer!)
        return
      case 'type':
        // Field 6 is a description.
        if (![1, 4, 5, 7, 8, 9].some(field => level.seen === (level.seen & (1 << 6)) + (1 << field))) {
          throw new UnusableFile('has a type that is none, or several')
        }
        return
      case 'tensor type':
        if (level.number && !isElementType(level.number)) {
          throw new UnusableFile(`has values of type ${level.number}, which there is not`)
        }
        return
      case 'place':
        closePlace(level, outer!)
        return
      case 'tensor':
        this.#closeTensor(level, outer!)
        return
      case 'sparse':
        if (!level.has(1) || !level.has(2))
          throw new UnusableFile('has a sparse tensor without values or indices')
        if (outer!.scope) outer!.scope.addInitializer(level.name)
        return
      case 'graph':
      case 'subgraph':
      case 'training graph':
      case 'function':
        this.#closeGraph(level, outer!)
    }
  }

  #closeModel(level: Level): void {
    if (this.irVersion < 3) throw new UnusableFile('has no IR version of at least 3')
    if (!level.has(7)) throw new UnusableFile('has no graph')
    if (!level.has(8)) throw new UnusableFile('has no operator set')
    for (const domain of this.#used) {
      if (this.#declared.has(domain)) continue
      throw new UnusableFile(
        `uses operators of ${escapeBytes(domain) || 'ai.onnx'}, a domain that it does not declare`,
      )
    }
  }

  #closeGraph(level: Level, outer: Level): void {
    const { message, used } = level
    if (message === 'graph') {
      if (!level.has(1)) throw new UnusableFile('has no nodes')
      if (!level.has(11)) throw new UnusableFile('has no inputs')
      if (!level.has(12)) throw new UnusableFile('has no outputs')
    }
    const missing = level.scope!.close()
    if (message === 'subgraph') {
      outer.handOn({ inputs: missing, used })
      return
    }
    // The graphs of a training build on the model's.
    if (missing.length && message !== 'training graph') {
      throw new UnusableFile(`uses ${escapeBytes(missing[0]!)}, which nothing before gives`)
    }
    for (const domain of used ?? []) if (!level.declared.has(domain)) this.#used.add(domain)
  }

  #closeTensor({ tensor, field }: Level, outer: Level): void {
    const place = tensor!.close()
    if (place) {
      const location = plain(place.location)
      this.externalData.set(location, Math.max(place.neededBytes, this.externalData.get(location) ?? 0))
      if (this.externalData.size > MOST_DATA_FILES) {
        throw new UnusableFile(
          `keeps its data in more than ${MOST_DATA_FILES} files, for which no manifest has room; ` +
            'export it with one file for all tensors',
        )
      }
    }
    if (outer.scope) {
      if (!tensor!.name) throw new UnusableFile('has an initializer without a name')
      outer.scope.addInitializer(tensor!.name)
    }
    // A sparse tensor is called as its values are.
    if (outer.message === 'sparse' && field === 1) outer.name = tensor!.name
  }
}

/**
 * Spell a location in the one way of all that lead to the same file: of one file each spelling would else be looked at. What
 * leads nowhere, or out of the folder, stays as it is written, for the message that refuses it.
 */
function plain(location: string): string {
  return location === '' || location.split('/').includes('..') ? location : posix.normalize(location)
}

/** The default domain has two names. */
function domainOf(text: string): string {
  return text === 'ai.onnx' ? '' : text
}

function takeOfNode(reader: WireReader, level: Level): void {
  switch (reader.field) {
    case 1:
      level.inputs = withName(level.inputs, reader)
      return
    case 2:
      level.outputs = withName(level.outputs, reader)
      return
    case 4:
      level.name = reader.bytes()
      if (level.name && !OPERATOR.test(level.name)) throw damagedOperator()
      return
    case 7:
      level.value = domainOf(reader.bytes())
  }
}

function withName(names: Bytes[] | undefined, reader: WireReader): Bytes[] {
  if (!names) return [reader.bytes()]
  if (names.length === MOST_NAMES) throw new UnusableFile(`has a node with more than ${MOST_NAMES} names`)
  names.push(reader.bytes())
  return names
}

function damagedOperator(): UnusableFile {
  return new UnusableFile('has a damaged operator in one of its nodes')
}

function closeAttribute(level: Level): void {
  if (!level.has(1)) throw new UnusableFile('has an attribute without a name')
  if (!ATTRIBUTE.test(level.name)) throw new UnusableFile('has an attribute with a damaged name')
  // In a function an attribute may stand for one of the function's.
  if (level.has(21)) return
  const valueField = valueFields[level.number]
  if (!valueField) throw new UnusableFile(`has an attribute (${escapeBytes(level.name)}) without a type`)
  const present = valueFields.filter(field => field && level.has(field))
  const isWhole = present.length
    ? present.length === 1 && present[0] === valueField
    : mayBeEmpty.includes(level.number)
  if (!isWhole)
    throw new UnusableFile(`has an attribute (${escapeBytes(level.name)}) whose value is not of its type`)
}

function closeValue({ name, field }: Level, outer: Level): void {
  if (!name) throw new UnusableFile('has no name for an input or output')
  if (outer.message === 'function') return
  if (field === 11) outer.scope!.addInput(name)
  else if (field === 12) outer.scope!.addOutput(name)
}

function closePlace({ name, value }: Level, { tensor }: Level): void {
  if (!placeKeys.includes(name)) return
  if (tensor!.place.has(name)) throw new UnusableFile(`states the ${name} of external data twice`)
  tensor!.place.set(name, value)
}
