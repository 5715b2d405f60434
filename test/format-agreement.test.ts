import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  ANCHOR_MAGIC,
  ANCHOR_OFFSET,
  anchorFields,
  CHUNK_CODEC_MASK,
  CHUNK_ENCRYPTED,
  CHUNK_IN_PARENT,
  FORMAT_MAJOR,
  FORMAT_MINOR,
  IMAGE_COMPRESSED,
  IMAGE_DELTA,
  IMAGE_ENCRYPTED,
  IMAGE_FOREIGN,
  layoutOf,
  NONE,
  NOTE_OWNER,
  projectNotes,
  type Fields,
} from '../src/elf/schema.js';
import { PT_WARP_ANCHOR, PT_WARP_CHUNKED } from '../src/elf/segments.js';

/** Names, types and places of one record, in the document's notation. */
interface Layout {
  size: number;
  fields: { offset: number; name: string; type: string }[];
}

const root = new URL('..', import.meta.url).pathname;
const text = readFileSync(join(root, 'docs/image-format.md'), 'utf8');

function tableRows(section: string): Layout['fields'] {
  return [...section.matchAll(/^\| (\d+) \| (\w+) \| ([^|]+?) \|/gm)].map(([, offset, name, type]) => ({
    offset: Number(offset),
    name: name!,
    type: type!,
  }));
}

function documented(): Map<string, Layout> {
  const layouts = new Map<string, Layout>();
  const anchor = /^## The anchor\n(.*?)^## /ms.exec(text)![1]!;
  layouts.set('anchor', { size: 128, fields: tableRows(anchor) });
  const table = /^## The project's notes\n(.*?)^\| type \|/ms.exec(text)![1]!;
  layouts.set('table', {
    size: 16,
    fields: [...table.matchAll(/^\| (\d+) \| (\w+) \| (\w+) \|/gm)].map(([, o, n, t]) => ({ offset: Number(o), name: n!, type: t! })),
  });
  for (const [, name, size, body] of text.matchAll(/^### (\w+) \((\d+) bytes\)\n(.*?)(?=^##)/gms)) {
    layouts.set(name!, { size: Number(size), fields: tableRows(body!) });
  }
  return layouts;
}

function documentedTypes(): [string, number][] {
  return [...text.matchAll(/^\| (0x574152[0-9a-f]{2}) \| (\w+) \|/gm)].map(([, type, name]) => [name!, Number(type)]);
}

function programmed(fields: Fields): Layout {
  const { places, size } = layoutOf(fields);
  return { size, fields: places.map(({ name, type, offset }) => ({ offset, name, type })) };
}

/** The structure's name in the header for a record: `vmas` is `struct warp_vma_record`. */
function structure(name: string): string {
  if (name === 'anchor' || name === 'table') return `warp_${name}`;
  const singular: Record<string, string> = {
    process: 'process',
    epoll_watches: 'epoll_watch',
    inotify_watches: 'inotify_watch',
    encryption: 'encryption',
    accesses: 'access',
    policies: 'policy',
  };
  return `warp_${singular[name] ?? name.replace(/s$/, '')}_record`;
}

/** The type of a structure member as the document would write it: `4×u32`, `slice`, `16 bytes`. */
const C_PROBE = String.raw`
#include <stddef.h>
#include <stdio.h>
#include "warp_image.h"
#define TYPE(e) _Generic((e), uint16_t: "u16", uint32_t: "u32", int32_t: "i32", uint64_t: "u64", int64_t: "i64", struct warp_slice: "slice", \
  uint8_t *: "bytes", char *: "bytes", uint32_t *: "u32 array", uint64_t *: "u64 array", uint64_t (*)[2]: "u64 pairs")
#define FIELD(s, f) printf("field " #s " " #f " %zu %zu %s\n", offsetof(struct s, f), sizeof(((struct s *)0)->f), TYPE(((struct s *)0)->f));
#define SIZE(s) printf("size " #s " %zu\n", sizeof(struct s));
#define NUMBER(n) printf("number " #n " %llu\n", (unsigned long long)(n));
`;

function typeFromC(kind: string, size: number): string {
  switch (kind) {
    case 'bytes':
      return `${size} bytes`;
    case 'u32 array':
      return `${size / 4}×u32`;
    case 'u64 array':
      return `${size / 8}×u64`;
    case 'u64 pairs':
      return `${size / 16}×2×u64`;
    default:
      return kind;
  }
}

describe('docs/image-format.md, warp_image.h and schema.ts', () => {
  const document = documented();
  let directory: string;
  const compiled = new Map<string, Layout>();
  const numbers = new Map<string, number>();

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'warp-format-'));
    const lines: string[] = [];
    for (const [name, { fields }] of document) {
      lines.push(`SIZE(${structure(name)})`, ...fields.map((field) => `FIELD(${structure(name)}, ${field.name})`));
    }
    for (const [name] of documentedTypes()) lines.push(`NUMBER(WARP_NOTE_${name.toUpperCase()})`);
    for (const name of ['WARP_FORMAT_MAJOR', 'WARP_FORMAT_MINOR', 'WARP_ANCHOR_OFFSET', 'PT_WARP_ANCHOR', 'PT_WARP_CHUNKED', 'WARP_NONE']) {
      lines.push(`NUMBER(${name})`);
    }
    for (const name of ['CODEC_MASK', 'ENCRYPTED', 'IN_PARENT']) lines.push(`NUMBER(WARP_CHUNK_${name})`);
    for (const name of ['COMPRESSED', 'ENCRYPTED', 'DELTA', 'FOREIGN']) lines.push(`NUMBER(WARP_IMAGE_${name})`);
    const source = join(directory, 'probe.c');
    writeFileSync(
      source,
      `${C_PROBE}int main(void) {\n${lines.join('\n')}\nprintf("text %s %s\\n", WARP_NOTE_OWNER, WARP_ANCHOR_MAGIC);\nreturn 0;\n}\n`,
    );
    const program = join(directory, 'probe');
    execFileSync('cc', ['-std=c17', '-Wall', '-Werror', `-I${join(root, 'native/include')}`, '-o', program, source]);
    for (const line of execFileSync(program, { encoding: 'utf8' }).trim().split('\n')) {
      const [what, first, second, ...rest] = line.split(' ');
      if (what === 'size') compiled.set(first!, { size: Number(second), fields: [] });
      if (what === 'number') numbers.set(first!, Number(second));
      if (what === 'text') expect([first, second]).toEqual([NOTE_OWNER, ANCHOR_MAGIC]);
      if (what === 'field') {
        const [offset, size, ...kind] = rest;
        compiled.get(first!)!.fields.push({ offset: Number(offset), name: second!, type: typeFromC(kind.join(' '), Number(size)) });
      }
    }
  });

  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('name the same notes with the same types', () => {
    const types = documentedTypes();
    expect(types.length).toBeGreaterThan(20);
    expect(Object.entries(projectNotes).map(([name, { type }]) => [name, type])).toEqual(types);
    for (const [name, type] of types) expect(numbers.get(`WARP_NOTE_${name.toUpperCase()}`), name).toBe(type);
  });

  it('describe a record for every note', () => {
    expect([...document.keys()].filter((name) => name !== 'anchor' && name !== 'table').toSorted()).toEqual(
      Object.keys(projectNotes).toSorted(),
    );
  });

  it.each([...document.keys()])('agree about %s', (name) => {
    const expected = document.get(name)!;
    if (name === 'anchor') expect(programmed(anchorFields)).toEqual(expected);
    else if (name !== 'table') expect(programmed(projectNotes[name as keyof typeof projectNotes].fields)).toEqual(expected);
    expect(compiled.get(structure(name))).toEqual(expected);
  });

  it('agree about constants', () => {
    expect(Object.fromEntries(numbers)).toMatchObject({
      WARP_FORMAT_MAJOR: FORMAT_MAJOR,
      WARP_FORMAT_MINOR: FORMAT_MINOR,
      WARP_ANCHOR_OFFSET: ANCHOR_OFFSET,
      PT_WARP_ANCHOR,
      PT_WARP_CHUNKED,
      WARP_NONE: NONE,
      WARP_CHUNK_CODEC_MASK: CHUNK_CODEC_MASK,
      WARP_CHUNK_ENCRYPTED: CHUNK_ENCRYPTED,
      WARP_CHUNK_IN_PARENT: CHUNK_IN_PARENT,
      WARP_IMAGE_COMPRESSED: IMAGE_COMPRESSED,
      WARP_IMAGE_ENCRYPTED: IMAGE_ENCRYPTED,
      WARP_IMAGE_DELTA: IMAGE_DELTA,
      WARP_IMAGE_FOREIGN: IMAGE_FOREIGN,
    });
    expect(text).toContain(`The image format, version ${FORMAT_MAJOR}.${FORMAT_MINOR}`);
  });
});
