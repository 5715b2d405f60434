/** `decode` and `encode`: unedited images come back byte for byte, and edits take effect in a real restore. */
import { copyFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MetadataJson, NoteJson, RecordJson } from '../src/elf/metadata.js';
import { NOTE_OWNER, projectNotes } from '../src/elf/schema.js';
import { schemas } from '../src/schemas/index.js';
import {
  compile,
  endTarget,
  gcore,
  imageDirectory,
  kernelCore,
  removeDirectory,
  scratchDirectory,
  startTarget,
  warpTool,
} from './support/cores.js';
import { Conversation, toolAsUser } from './support/engine.js';
import { foreignCore, PAGE, prstatusNote, sealMetadata, warpImage } from './support/synthesise.js';

const directory = scratchDirectory();
const images: Record<string, string | { skip: string }> = {};
const conversations: Conversation[] = [];

/** Answers each line with one thing that an image's metadata decides. */
const PROGRAM = String.raw`
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
  char line[100], text[100] = "";
  (void)argc;
  if (open(argv[1], O_RDONLY) != 3) return 1;
  char **copy = malloc(1000 * sizeof *copy); /* as shells keep one */
  size_t count = 0;
  do copy[count] = environ[count]; while (environ[count++] != NULL);
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = 0;
    if (!strcmp(line, "file")) {
      text[pread(3, text, 50, 0)] = 0;
      puts(text);
    } else if (!strcmp(line, "name")) {
      prctl(PR_GET_NAME, text);
      puts(text);
    } else if (!strcmp(line, "usr2")) {
      struct sigaction action;
      sigaction(SIGUSR2, NULL, &action);
      puts(action.sa_handler == SIG_IGN ? "ignored" : "default");
    } else if (!strcmp(line, "count")) {
      size_t set = 0;
      for (char **entry = environ; *entry != NULL; entry++) set += **entry != 0;
      printf("%zu\n", set);
    } else {
      const char *value = getenv(line);
      environ = copy;
      const char *other = getenv(line);
      printf("%s %s\n", value == NULL ? "none" : value, value == other || strcmp(value, other) == 0 ? "twice" : "once");
    }
    fflush(stdout);
  }
}
`;

let ours: string;

beforeAll(async () => {
  const executable = compile(directory, 'program', PROGRAM);
  writeFileSync(join(directory, 'one'), 'the first file');
  writeFileSync(join(directory, 'two'), 'the other file');
  const program = Conversation.start(directory, ['run', '--', executable, join(directory, 'one')], {
    WARP_EDITED: 'original value',
    WARP_SPARE: 'x'.repeat(200),
    WARP_KEPT: 'kept',
  });
  await program.line();
  ours = program.checkpoint(directory, 'ours');
  await program.ended;
  images['engine'] = ours;
  const target = await startTarget(directory);
  images['gcore'] = gcore(target, directory);
  images['kernel'] = await kernelCore(target, directory);
  await endTarget(target);
});

afterAll(async () => {
  for (const conversation of conversations) await conversation.kill();
  removeDirectory(directory);
});

const fileOf = (image: string): string => (statSync(image).isDirectory() ? join(image, 'core.img') : image);
const decode = (image: string): MetadataJson => JSON.parse(toolAsUser(directory, 'decode', image).stdout) as MetadataJson;

function note(document: MetadataJson, name: string): NoteJson {
  return document.notes.flatMap((part) => part.notes ?? []).find((one) => one.name === name)!;
}

let number = 0;

function encode(document: MetadataJson): { status: number | null; stderr: string; image: string } {
  const name = `encoded-${number++}`;
  writeFileSync(join(directory, `${name}.json`), JSON.stringify(document));
  const { status, stderr } = toolAsUser(directory, 'encode', join(directory, `${name}.json`), '-o', join(directory, name));
  return { status, stderr, image: join(directory, name) };
}

/** Encodes, checks and restores; the standalone restorer reads what the standalone engine wrote. */
function restored(document: MetadataJson): Conversation {
  const { status, stderr, image } = encode(document);
  expect([status, stderr]).toEqual([0, '']);
  expect(warpTool('validate', image)).toMatchObject({ status: 0 });
  const conversation = Conversation.start(directory, ['restore', '--verify', image]);
  conversations.push(conversation);
  return conversation;
}

describe.each(['engine', 'gcore', 'kernel'])('decode of an image of %s', (writer) => {
  it('follows its schema, and encodes to the same bytes', (context) => {
    const image = images[writer]!;
    if (typeof image !== 'string') return context.skip(image.skip);
    const json = join(directory, `${writer}.json`);
    const again = join(directory, `${writer}-again.img`);
    expect(warpTool('decode', image, '-o', json)).toMatchObject({ status: 0, stderr: '' });
    const ajv = new Ajv2020({ strict: false });
    ajv.validate(schemas['decode']!.json, JSON.parse(readFileSync(json, 'utf8')));
    expect(ajv.errors).toBeNull();
    expect(warpTool('encode', json, '-o', again)).toMatchObject({ status: 0, stderr: '' });
    expect(readFileSync(again).equals(readFileSync(fileOf(image)))).toBe(true);
    expect(statSync(again).mode & 0o777).toBe(0o600);
  });
});

it('decode holds every byte of the metadata: none can change without the document changing', () => {
  const original = readFileSync(fileOf(ours));
  const end = Number(original.readBigUInt64LE(80));
  const before = warpTool('decode', ours).stdout;
  const path = join(directory, 'changed.img');
  let decoded = 0;
  for (let at = 192; at < end; at += Math.ceil((end - 192) / 20)) {
    const changed = Buffer.from(original);
    changed[at]! ^= 0x40;
    writeFileSync(path, changed);
    const { stdout, status } = warpTool('decode', path);
    if (status !== 0) continue; // damage that is refused
    decoded++;
    const { source: _, ...document } = JSON.parse(stdout) as MetadataJson;
    const { source: __, ...same } = JSON.parse(before) as MetadataJson;
    expect(document, `offset ${at}`).not.toEqual(same);
  }
  expect(decoded).toBeGreaterThan(5);
});

describe('an edited document', () => {
  const environmentEntry = (document: MetadataJson, name: string): number =>
    document.environment!.findIndex((entry) => typeof entry === 'string' && entry.startsWith(`${name}=`));

  it('gives the restored process another environment variable, where it is not longer', async () => {
    const document = decode(ours);
    document.environment![environmentEntry(document, 'WARP_EDITED')] = 'WARP_EDITED=new';
    const program = restored(document);
    expect(await program.ask('WARP_EDITED')).toBe('new twice');
    expect(await program.ask('WARP_KEPT')).toBe('kept twice');
  });

  it('moves a longer variable into the room of a removed one', async () => {
    const document = decode(ours);
    const value = 'a much longer value than it was before '.repeat(4);
    document.environment![environmentEntry(document, 'WARP_EDITED')] = `WARP_EDITED=${value}`;
    document.environment![environmentEntry(document, 'WARP_SPARE')] = '';
    const program = restored(document);
    expect(await program.ask('WARP_EDITED')).toBe(`${value} twice`);
    expect(await program.ask('WARP_SPARE')).toMatch(/^none/);
    expect(await program.ask('WARP_KEPT')).toBe('kept twice');
    const image = join(directory, `encoded-${number - 1}`);
    const { environment } = JSON.parse(warpTool('env', image, '--json').stdout) as { environment: { name: string; value: string }[] };
    expect(environment).toContainEqual({ name: 'WARP_EDITED', value });
    expect(environment.map(({ name }) => name)).not.toContain('WARP_SPARE');
  });

  it('is refused with one line where a variable does not fit', () => {
    const document = decode(ours);
    document.environment![environmentEntry(document, 'WARP_EDITED')] = `WARP_EDITED=${'x'.repeat(1000)}`;
    const { status, stderr, image } = encode(document);
    expect(status).toBe(2);
    expect(stderr.trimEnd()).toMatch(/WARP_EDITED does not fit: .* or give it at restore with --env$/);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(existsSync(image)).toBe(false);
  });

  it('opens another file in place of a descriptor', async () => {
    const document = decode(ours);
    const descriptions = note(document, 'descriptions').records!;
    const file = descriptions.find(({ path }) => path === join(directory, 'one'))!;
    file['path'] = join(directory, 'two');
    const program = restored(document);
    expect(await program.ask('file')).toBe('the other file');
  });

  it('gives threads other names and signals other dispositions', async () => {
    const document = decode(ours);
    note(document, 'threads').records![0]!['name'] = 'renamed';
    const usr2: RecordJson = { number: 12, reserved: 0, handler: '0x1', flags: '0x0', restorer: '0x0', mask: '0x0' };
    const actions = document.notes.flatMap((part) => part.notes ?? []).find((one) => one.name === 'signal_actions');
    if (actions) actions.records!.push(usr2);
    else document.notes.at(-1)!.notes!.push(projectNote('signal_actions', [usr2]));
    const program = restored(document);
    expect(await program.ask('name')).toBe('renamed');
    expect(await program.ask('usr2')).toBe('ignored');
  });

  it('may grow beyond the room that the metadata had: content moves', async () => {
    const document = decode(ours);
    const before = readFileSync(fileOf(ours));
    const label = { kind: 1, reserved: 0, name: 'purpose', value: 'long '.repeat(4000) };
    document.notes.at(-1)!.notes!.push(projectNote('tags', [label]));
    const program = restored(document);
    expect(await program.ask('WARP_EDITED')).toBe('original value twice');
    const after = readFileSync(fileOf(join(directory, `encoded-${number - 1}`)));
    expect(after.readBigUInt64LE(80)).toBeGreaterThan(before.readBigUInt64LE(80));
    const again = decode(join(directory, `encoded-${number - 1}`));
    expect(note(again, 'tags').records).toEqual([label]);
  });

  it.each<[string, (document: MetadataJson) => void, RegExp]>([
    [
      'a number out of range',
      (document) => (note(document, 'descriptors').records![0]!['number'] = 2 ** 40),
      /records\[0\]\.number: 1099511627776 is no u32/,
    ],
    ['a text for a number', (document) => (note(document, 'process').records![0]!['pid'] = 'x'), /\.pid: "x" is not a whole number/],
    ['a missing field', (document) => delete note(document, 'process').records![0]!['pid'], /\.pid is missing/],
    [
      'a list that is too short',
      (document) => ((note(document, 'process').records![0]!['uid'] as number[]).length = 2),
      /\.uid is not a list of 4/,
    ],
    ['an explanation', (document) => (note(document, 'NT_PRPSINFO').meaning = { pid: 1 }), /"meaning" was edited/],
    ['a NUL in the environment', (document) => (document.environment![0] = 'A\0'), /environment\[0\] holds a NUL/],
    ['one more variable', (document) => document.environment!.push('A=1'), /has no room for more entries/],
    ['another image', (document) => (document.source.hash = '0x1'), /is not the image that the document was decoded from/],
    ['another format', (document) => ((document.format as string) = 'x'), /is no document of `warp-tool decode`/],
  ])('is refused with one line for %s', (_, edit, message) => {
    const document = decode(ours);
    edit(document);
    const { status, stderr } = encode(document);
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it.each([['not json'], ['{}'], ['[]'], ['null']])('is refused when the file holds %s', (content) => {
    const path = join(directory, 'bad.json');
    writeFileSync(path, content);
    const { status, stderr } = warpTool('encode', path, '-o', join(directory, 'never'));
    expect(status).toBe(2);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });
});

function projectNote(name: 'tags' | 'signal_actions', records: RecordJson[]): NoteJson {
  const sizes = { tags: 24, signal_actions: 40 };
  return { owner: NOTE_OWNER, type: `0x${projectNotes[name].type.toString(16)}`, name, record_size: sizes[name], records };
}

describe('a built image', () => {
  const roundTrip = (image: string): boolean => {
    const json = join(directory, 'built.json');
    expect(warpTool('decode', image, '-o', json)).toMatchObject({ status: 0 });
    const again = join(directory, 'built-again.img');
    expect(warpTool('encode', json, '-o', again)).toMatchObject({ status: 0, stderr: '' });
    return readFileSync(again).equals(readFileSync(fileOf(image)));
  };

  it('with shared and disordered slices, later fields and bytes of unknown meaning comes back the same', async () => {
    const content = await warpImage({
      segments: [{ address: 0x10000n, size: 4096n, content: Buffer.alloc(PAGE, 5) }],
      tables: { tags: [{ kind: 1, name: Buffer.from('label'), value: Buffer.from([0, 255, 7]) }] },
    });
    expect(roundTrip(imageDirectory(directory, 'plain', content))).toBe(true);
    const at = content.indexOf('label');
    expect(at).toBeGreaterThan(0);
    // The value's slice names the same bytes as the name's.
    content.writeUInt32LE(0, at - 8);
    content[Number(content.readBigUInt64LE(80)) - 1] = 0x77;
    const image = imageDirectory(directory, 'shared', await sealMetadata(content));
    expect(roundTrip(image)).toBe(true);
    const document = JSON.parse(warpTool('decode', image).stdout) as MetadataJson;
    expect(note(document, 'tags').records).toMatchObject([{ name: 'label', value: 'lab' }]);
    expect(document.residue).toMatchObject([{ bytes: '77' }]);
    note(document, 'tags').records![0]!['value'] = 'xyz';
    document.residue = [];
    copyFileSync(join(image, 'core.img'), join(directory, 'shared.img'));
    const edited = encode({ ...document, source: { ...document.source, path: join(directory, 'shared.img') } });
    expect(edited.stderr).toBe('');
    expect(note(decode(edited.image), 'tags').records).toMatchObject([{ name: 'label', value: 'xyz' }]);
  });

  it('with more than 65,534 segments comes back the same', async () => {
    const segments = Array.from({ length: 66_000 }, (_, index) => ({ address: BigInt(index + 16) * 8192n, size: 4096n }));
    expect(roundTrip(imageDirectory(directory, 'many', await warpImage({ segments })))).toBe(true);
    const foreign = join(directory, 'many.core');
    writeFileSync(foreign, foreignCore({ segments, notes: [prstatusNote(1)] }));
    expect(roundTrip(foreign)).toBe(true);
  });
});
