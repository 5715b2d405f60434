/**
 * JSON Schemas (draft 2020-12) of what --json prints, built so that TypeScript knows the same shapes: a command cannot return what its schema
 * does not allow. Every property is always there, what an image does not tell is null; the one exception is `partial`.
 */
declare const shape: unique symbol;
export interface Schema<T> {
  readonly json: Record<string, unknown>;
  readonly [shape]?: T;
}
export type Static<S> = S extends Schema<infer T> ? T : never;

const make = <T>(json: Record<string, unknown>): Schema<T> => ({ json });

export const string = (description?: string): Schema<string> => make({ type: 'string', ...(description && { description }) });
export const integer = (description?: string): Schema<number> => make({ type: 'integer', ...(description && { description }) });
export const number = (description?: string): Schema<number> => make({ type: 'number', ...(description && { description }) });
export const boolean = (description?: string): Schema<boolean> => make({ type: 'boolean', ...(description && { description }) });
/** An address or a 64-bit register or mask: `0x` and lower-case digits. */
export const hexadecimal = (description?: string): Schema<string> =>
  make({ type: 'string', pattern: '^0x[0-9a-f]+$', ...(description && { description }) });
/** A size or offset in bytes: a number, or a decimal string past 2^53. */
export const byteCount = (description?: string): Schema<number | string> =>
  make({
    anyOf: [
      { type: 'integer', minimum: 0 },
      { type: 'string', pattern: '^[0-9]+$' },
    ],
    ...(description && { description }),
  });
export const nullable = <T>(schema: Schema<T>, description?: string): Schema<T | null> =>
  make({ anyOf: [schema.json, { type: 'null' }], ...(description && { description }) });
export const array = <T>(items: Schema<T>, description?: string): Schema<T[]> =>
  make({ type: 'array', items: items.json, ...(description && { description }) });
export const map = <T>(values: Schema<T>): Schema<Record<string, T>> => make({ type: 'object', additionalProperties: values.json });
export const oneOf = <const T extends string>(...values: T[]): Schema<T> => make({ enum: values });
export const object = <P extends Record<string, Schema<unknown>>>(properties: P): Schema<{ [K in keyof P]: Static<P[K]> }> =>
  make({
    type: 'object',
    properties: Object.fromEntries(Object.entries(properties).map(([name, schema]) => [name, schema.json])),
    required: Object.keys(properties),
    additionalProperties: false,
  });

/** An object of which any properties may be missing. */
export const partial = <P extends Record<string, Schema<unknown>>>(properties: P): Schema<{ [K in keyof P]?: Static<P[K]> }> => {
  const { required: _, ...json } = object(properties).json;
  return make(json);
};

/** Any of some shapes. */
export const anyOf = (...schemas: Schema<unknown>[]): Schema<unknown> => make({ anyOf: schemas.map(({ json }) => json) });

/** The form of `byteCount` for a value. */
export function byteCountOf(value: bigint): number | string {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value.toString();
}
