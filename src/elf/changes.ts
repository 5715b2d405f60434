/** One thing that differs between two images. Values are text; null: not there. */
export interface Change {
  section: string;
  /** Which thread, area, descriptor …. */
  key: string;
  kind: 'added' | 'removed' | 'changed';
  fields: FieldChange[];
}

export interface FieldChange {
  field: string;
  a: string | null;
  b: string | null;
}

/** Items of one section: by key, each with named values. */
export type Items = Map<string, Record<string, unknown>>;

/** What is in `a` and `b` by key, field by field. Nested objects become fields with dots in their names. */
export function compareItems(section: string, a: Items, b: Items): Change[] {
  const changes: Change[] = [];
  for (const key of new Set([...a.keys(), ...b.keys()])) {
    const before = a.get(key);
    const after = b.get(key);
    const kind = before === undefined ? 'added' : after === undefined ? 'removed' : 'changed';
    const was = flatten(before ?? {});
    const is = flatten(after ?? {});
    const fields: FieldChange[] = [];
    for (const field of new Set([...was.keys(), ...is.keys()])) {
      const change = { field, a: was.get(field) ?? null, b: is.get(field) ?? null };
      if (change.a !== change.b) fields.push(change);
    }
    if (fields.length > 0 || kind !== 'changed') changes.push({ section, key, kind, fields });
  }
  return changes;
}

function flatten(value: Record<string, unknown>, prefix = '', fields = new Map<string, string>()): Map<string, string> {
  for (const [name, item] of Object.entries(value)) {
    if (item === null || item === undefined) continue;
    const field = `${prefix}${name}`;
    if (Buffer.isBuffer(item)) fields.set(field, textOrHex(item));
    else if (Array.isArray(item)) fields.set(field, item.map((one) => itemText(one)).join(' '));
    else if (typeof item === 'object') flatten(item as Record<string, unknown>, `${field}.`, fields);
    else fields.set(field, String(item));
  }
  return fields;
}

function itemText(item: unknown): string {
  if (Array.isArray(item)) return item.map((one) => itemText(one)).join('/');
  return typeof item === 'object' && item !== null ? JSON.stringify(item) : String(item);
}

/** Bytes as text where they are text. */
function textOrHex(bytes: Buffer): string {
  const text = bytes.toString();
  // oxlint-disable-next-line no-control-regex
  return /[\u0000-\u001f\u007f\ufffd]/.test(text) ? bytes.toString('hex') : text;
}
