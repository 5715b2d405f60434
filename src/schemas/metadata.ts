import { metadataRecords } from '../elf/metadata.js';
import { projectNotes, shapeOf, type Fields, type FieldType } from '../elf/schema.js';
import { anyOf, array, hexadecimal, integer, nullable, object, oneOf, partial, string, type Schema } from './builder.js';

const hexBytes = (description: string): Schema<unknown> => ({ json: { type: 'string', pattern: '^([0-9a-f]{2})*$', description } });
const bytesValue = anyOf(string('text'), object({ hex: hexBytes('bytes that are no text') }));

/** What a field of the image format is in the document. */
function fieldSchema(type: FieldType): Schema<unknown> {
  const { scalar, dimensions } = shapeOf(type);
  if (scalar === 'bytes') return hexBytes(type);
  const one = scalar === 'slice' ? bytesValue : scalar === 'u64' ? hexadecimal('u64') : scalar === 'i64' ? signed : integer(scalar);
  return dimensions.reduce<Schema<unknown>>((items) => array(items), one);
}

const signed: Schema<unknown> = { json: { type: 'string', pattern: '^(-?[0-9]+|0x[0-9a-f]+)$', description: 'i64' } };

/** `_rest`: fields of a later minor version of the format. Records of an earlier one have fewer fields. */
function recordSchema(fields: Fields): Schema<unknown> {
  const properties = Object.fromEntries(Object.entries(fields).map(([name, type]) => [name, fieldSchema(type)]));
  const { json } = partial(properties);
  return { json: { ...json, properties: { ...(json['properties'] as object), _rest: hexBytes('fields of a later minor version').json } } };
}

const layout = partial({
  slices: array(array(integer()), 'offset and length of every slice, in the order of records and fields'),
  heap: hexBytes('as it was'),
  tail: hexBytes('what follows it in the note'),
});

function noteSchema(name: string, body: Record<string, Schema<unknown>>, optional: Record<string, Schema<unknown>>): Schema<unknown> {
  const required = object({ owner: string(), type: hexadecimal(), name: name === '' ? nullable(string()) : oneOf(name), ...body });
  const { json } = required;
  return { json: { ...json, properties: { ...(json['properties'] as object), ...(partial(optional).json['properties'] as object) } } };
}

const note = anyOf(
  noteSchema(
    '',
    { bytes: hexBytes('the descriptor') },
    { meaning: { json: { description: 'what the bytes say; encode takes the bytes' } } },
  ),
  ...Object.entries(projectNotes).map(([name, { fields }]) =>
    noteSchema(name, { record_size: integer('bytes'), records: array(recordSchema(fields)) }, { layout }),
  ),
);

export const metadata = object({
  format: oneOf('warp-tool metadata 1'),
  source: object({
    path: string('the image that holds the content'),
    size: string('bytes, decimal'),
    hash: hexadecimal('XXH64 of its metadata'),
  }),
  header: recordSchema(metadataRecords.header),
  anchor: nullable(recordSchema(metadataRecords.anchor)),
  segments: array(recordSchema(metadataRecords.segment)),
  sections: hexBytes('section headers'),
  notes: array(
    object({
      segment: integer('index into segments'),
      notes: nullable(array(note)),
      bytes: nullable(hexBytes('the segment, where it is not laid out as notes usually are')),
    }),
  ),
  environment: nullable(array(bytesValue, 'entries NAME=VALUE as memory holds them; null where the image does not tell')),
  residue: array(object({ offset: hexadecimal(), bytes: hexBytes('bytes of the metadata that belong to nothing above') })),
});
