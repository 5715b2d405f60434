/** The command line as a user runs it: the bundle in a process of its own, on real and on built images. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMMANDS } from '../src/commands/index.js';
import { schemas } from '../src/schemas/index.js';
import {
  endTarget,
  gcore,
  imageDirectory,
  missing,
  removeDirectory,
  root,
  scratchDirectory,
  startTarget,
  warpTool,
} from './support/cores.js';
import { PAGE, warpImage } from './support/synthesise.js';

const directory = scratchDirectory();
let ours: string;
let foreign: string | { skip: string };

const address = (family: number, ...bytes: number[]): Buffer => Buffer.from([family, 0, ...bytes]);
/** A message in a socket's unread data: length, zero, bytes, padding. */
const unread = (text: string): Buffer => {
  const raw = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8);
  raw.writeUInt32LE(text.length);
  raw.write(text, 8);
  return raw;
};
const NONE = 0xffffffff;

beforeAll(async () => {
  const image = await warpImage({
    segments: [
      { address: 0x10000n, size: 8192n, content: Buffer.alloc(2 * PAGE, 5) },
      { address: 0x7ff0_0000_0000n, size: 4096n, content: Buffer.from('A=1\0EMPTY=\0ODD\0'.padEnd(PAGE, '\0')) },
    ],
    anchor: { flags: 2 },
    tables: {
      image: [
        {
          image_id: Buffer.from('00112233445566778899aabbccddeeff', 'hex'),
          generation: 3,
          flags: 2,
          realtime_ns: 1_700_000_000_123_456_789n,
          page_size: PAGE,
          machine: 62,
          xstate_features: 0xe7n,
          engine_version: Buffer.from('0.1.0'),
          hostname: Buffer.from('host\x1b[31m'),
          executable: Buffer.from('/bin/synthetic'),
          command: Buffer.from('synthetic\0an argument\0'),
        },
      ],
      process: [
        {
          pid: 100,
          process_group: 90,
          session: 80,
          uid: [1000, 1000, 1000, 1000],
          cwd: Buffer.from('/tmp'),
          env_start: 0x7ff0_0000_0000n,
          env_end: 0x7ff0_0000_000fn,
        },
      ],
      tags: [{ kind: 1, name: Buffer.from('service'), value: Buffer.from('search') }],
      threads: [{ tid: 100, flags: 1, system_call: 232, state: 83, name: Buffer.from('main'), signal_mask: 0x200n }],
      descriptors: [
        { number: 0, description: 0 },
        { number: 3, description: 1, flags: 1 },
        { number: 4, description: 1 },
        { number: 5, description: 2 },
        { number: 6, description: 3 },
        { number: 7, description: 4 },
        { number: 8, description: 5 },
        { number: 9, description: 6 },
      ],
      descriptions: [
        { kind: 14, detail: 0 },
        { kind: 1, detail: NONE, status_flags: 0o102002, offset: 17n, size: 99n, path: Buffer.from('/tmp/file') },
        { kind: 7, detail: 0, status_flags: 0o4002, path: Buffer.from('socket:[5]') },
        { kind: 9, detail: NONE, status_flags: 2 },
        { kind: 5, detail: 0, status_flags: 1, path: Buffer.from('pipe:[9]') },
        { kind: 7, detail: 1, status_flags: 2, path: Buffer.from('socket:[6]') },
        { kind: 7, detail: 2, status_flags: 2, path: Buffer.from('socket:[7]') },
      ],
      sockets: [
        { family: 2, type: 1, state: 2, backlog: 128, peer: NONE, local: address(2, 0x1f, 0x90, 127, 0, 0, 1) },
        { family: 1, type: 5, state: 3, peer: 2, data: Buffer.concat([unread('one'), unread('twelve bytes')]) },
        { family: 1, type: 5, state: 3, peer: 1 },
      ],
      pipes: [{ inode: 9n, capacity: 65536, flags: 1, data: Buffer.from('unread') }],
      epoll_watches: [{ description: 3, fd: 5, events: 0x80000001, target: 2, data: 0xfeedn }],
      signal_actions: [
        { number: 13, handler: 1n },
        { number: 15, handler: 0x10010n, flags: 0x14000004n, mask: 0x2n },
      ],
      pending_signals: [{ tid: 0, siginfo: Buffer.alloc(128, Buffer.from([34, 0, 0, 0])) }],
    },
  });
  ours = imageDirectory(directory, 'image', image);
  const target = await startTarget(directory);
  foreign = gcore(target, directory);
  await endTarget(target);
});

afterAll(() => removeDirectory(directory));

const images = (): string[] => [ours, ...(typeof foreign === 'string' ? [foreign] : [])];
const json = <T = Record<string, unknown>>(...argv: string[]): T => JSON.parse(warpTool(...argv, '--json').stdout) as T;

describe('--json', () => {
  const ajv = new Ajv2020({ strict: false });
  const inspecting = ['show', 'threads', 'maps', 'fds', 'env', 'signals', 'notes', 'auxv', 'validate'];

  it('has a schema for every command that takes it', () => {
    const taking = Object.entries(COMMANDS).filter(([, command]) => 'json' in { ...command.baseFlags, ...command.flags });
    expect(taking.map(([name]) => name).toSorted()).toEqual(Object.keys(schemas).toSorted());
  });

  it.each(inspecting)('of %s follows its schema', (name) => {
    const check = ajv.compile(schemas[name]!.json);
    let checked = 0;
    for (const image of images()) {
      const { status, stdout, stderr } = warpTool(name, image, '--json');
      if (status === 2 && (name === 'fds' || name === 'signals') && image !== ours) continue; // foreign cores do not hold these
      expect(stderr).toBe('');
      check(JSON.parse(stdout));
      expect(check.errors, `${name} ${image}`).toBeNull();
      checked++;
    }
    expect(checked).toBeGreaterThan(0);
  });

  it.each(['ps', 'engines', 'doctor'])('of %s follows its schema', (name) => {
    const check = ajv.compile(schemas[name]!.json);
    check(json(name));
    expect(check.errors).toBeNull();
  });

  it('of threads --registers follows its schema', () => {
    const check = ajv.compile(schemas['threads']!.json);
    for (const image of images()) check(json('threads', image, '--registers'));
    expect(check.errors).toBeNull();
  });

  it('is one document with the error when there is one', () => {
    const { status, stdout } = warpTool('show', '/no/such/image', '--json');
    expect(status).toBe(2);
    expect(JSON.parse(stdout)).toEqual({ error: { message: expect.stringContaining('/no/such/image'), exit_code: 2 } });
  });

  it('is what `schema` describes', () => {
    const document = JSON.parse(warpTool('schema', 'maps').stdout) as Record<string, unknown>;
    expect(document).toMatchObject({ $schema: expect.stringContaining('2020-12'), ...schemas['maps']!.json });
  });
});

describe('errors', () => {
  it.each<[string[], RegExp]>([
    [['show'], /^warp-tool: missing argument IMAGE; see `warp-tool show --help`$/],
    [['show', '--json'], /missing argument IMAGE/],
    [['show', '/no/such/image'], /^warp-tool: cannot open \/no\/such\/image: no such file or directory; check the path$/],
    [['show', '/'], /holds no core\.img/],
    [['show', 'ftp://host/key'], /ftp:\/\/host\/key: ftp:\/\/ is not known; give a directory, a core file, or an s3:\/\/ or gs:\/\/ URL/],
    [['show', '/bin/sh'], /\/bin\/sh: at offset 0x10: this ELF file is of type dyn/],
    [['show', '--no-such-flag', 'x'], /show has no flag --no-such-flag/],
    [['maps', 'x', '--sort', 'colour'], /expected --sort=colour to be one of/],
    [['shw'], /^warp-tool: shw is not a warp-tool command; did you mean `warp-tool show`\?$/],
    [['run'], /no program given/],
    [['run', '--', '/no/such/program'], /cannot run \/no\/such\/program: no such file or directory/],
    [['run', '--', 'no-such-program-anywhere'], /no such program in PATH/],
    [['run', '--policies', '/no/such', '--', 'true'], /^warp-tool: \/no\/such: the policies cannot be read: No such file or directory/],
    [['checkpoint', 'abc', '--to', '/tmp/x'], /abc is not a process id/],
    [['checkpoint', '1'], /missing flag --to; see/],
    [['checkpoint', '1', '--to', 'http://b/k'], /http:\/\/b\/k is not a place in an object store; give s3:/],
    [['checkpoint', '1', '--to', '/tmp/x', '--compression', 'zip'], /expected --compression=zip to be one of: none, lz4/],
    [['checkpoint', '1', '--to', '/tmp/x', '--compression-level', '3'], /no meaning without --compression lz4/],
    [['checkpoint', '1', '--to', '/tmp/x', '--encryption-key-env', 'K'], /variable K with the key is not set/],
    [['restore', 'x', '--encryption-key-file', 'k', '--encryption-key-env', 'K'], /cannot also be provided/],
    [['checkpoint', '1', '--to', '/tmp/x', '--parent', 'p'], /--parent is not supported/],
    [['checkpoint', '1', '--to', '/tmp/x', '--timeout', 'soon'], /--timeout soon is not a number of seconds/],
    [['restore', 'x', '--engine', 'pauseengine', '--keep-pid'], /--keep-pid has no meaning with --engine pauseengine/],
    [['restore', 'x', '--env', 'NOVALUE'], /--env NOVALUE is not NAME=VALUE/],
    [['schema', 'nothing'], /nothing prints no JSON document/],
  ])('%j exits with 2 and one line', (argv, message) => {
    const { status, stderr } = warpTool(...argv);
    expect(status).toBe(2);
    expect(stderr.trimEnd()).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it('show a stack trace with --debug only', () => {
    expect(warpTool('show', '/no/such/image', '--debug').stderr).toMatch(/\n\s+at /);
    expect(warpTool('show', '/no/such/image').stderr).not.toMatch(/\n\s+at /);
  });

  it('refuse a statically linked program', (context) => {
    const source = join(directory, 'static.c');
    writeFileSync(source, 'int main(void) { return 0; }\n');
    const built = spawnSync('cc', ['-static', '-o', join(directory, 'static'), source], { encoding: 'utf8' });
    if (built.status !== 0) context.skip('no static C library is installed');
    const { status, stderr } = warpTool('run', '--', join(directory, 'static'));
    expect(status).toBe(2);
    expect(stderr).toMatch(/is statically linked, so the engine cannot be loaded into it/);
  });
});

describe('output', () => {
  it('has no colours in a pipe, and has them with FORCE_COLOR unless --no-color is given', () => {
    const escape = '\x1b[';
    expect(warpTool('show', ours).stdout).not.toContain(escape);
    const colourful = (...flags: string[]): string =>
      execFileSync(process.execPath, [join(root, 'bin/run.js'), 'show', ours, ...flags], {
        encoding: 'utf8',
        env: { ...process.env, FORCE_COLOR: '1', NO_COLOR: '' },
      });
    expect(colourful()).toContain(escape);
    expect(colourful('--no-color')).not.toContain(escape);
  });

  it('never passes control characters of an image to the terminal', () => {
    expect(warpTool('show', ours).stdout).toContain('host\\x1b[31m');
  });

  it('ends quietly when its reader goes away', () => {
    const { status, stderr } = spawnSync(
      'bash',
      ['-c', `"${process.execPath}" "${join(root, 'bin/run.js')}" schema | head -c 1 >/dev/null; exit \${PIPESTATUS[0]}`],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    expect([0, 141]).toContain(status);
  });

  it('of show tells what the image is', () => {
    const document = json('show', ours);
    expect(document).toMatchObject({
      format: '1.0',
      id: '00112233-4455-6677-8899-aabbccddeeff',
      generation: 3,
      flags: ['left-running'],
      captured_at: '2023-11-14T22:13:20.123456789Z',
      engine: 'warp 0.1.0',
      process: {
        pid: 100,
        name: 'main',
        command: ['synthetic', 'an argument'],
        executable: '/bin/synthetic',
        cwd: '/tmp',
        uid: 1000,
        process_group: 90,
        session: 80,
      },
      labels: [{ kind: 'label', name: 'service', value: 'search' }],
      threads: { count: 1, system_calls: [{ name: 'epoll_wait', count: 1 }] },
      content: { chunks: 2, codecs: ['plain'], encrypted: false },
      needs: { machine: 'x86-64', page_size: 4096, xstate_features: ['x87', 'sse', 'avx', 'opmask', 'zmm_hi256', 'hi16_zmm'] },
    });
    const text = warpTool('show', ours).stdout;
    expect(text).toContain("synthetic 'an argument'");
    expect(text).toContain('1 standard stream');
  });

  it('of fds tells what each descriptor is', () => {
    const { descriptors } = json<{ descriptors: Record<string, unknown>[] }>('fds', ours);
    expect(descriptors).toMatchObject([
      { fd: 0, kind: 'caller', detail: { stream: 'stdin' } },
      { fd: 3, kind: 'file', close_on_exec: true, access: 'read-write', status_flags: ['O_APPEND'], offset: 17, shared_with: [4] },
      { fd: 4, kind: 'file', close_on_exec: false, shared_with: [3] },
      { fd: 5, kind: 'socket', status_flags: ['O_NONBLOCK'], detail: { state: 'listening', local: '127.0.0.1:8080', backlog: 128 } },
      { fd: 6, kind: 'epoll', detail: { watches: [{ fd: 5, events: ['IN', 'ET'], data: '0xfeed' }] } },
      { fd: 7, kind: 'pipe', access: 'write', detail: { unread: 6, no_reader: true } },
      { fd: 8, kind: 'socket', detail: { state: 'pair', type: 'seqpacket', unread: 15, peer: [9] } },
      { fd: 9, kind: 'socket', detail: { state: 'pair', unread: 0, peer: [8] } },
    ]);
    const text = warpTool('fds', ours).stdout;
    expect(text).toMatch(/^ 5 +socket +rw +- +nonblock +tcp listening, 127\.0\.0\.1:8080, backlog 128$/m);
    expect(text).toMatch(/^ 6 +epoll .*watches 5\(IN\|ET\)$/m);
  });

  it('of env, signals and threads tells what the image holds', () => {
    expect(json('env', ours)['environment']).toEqual([
      { name: 'A', value: '1' },
      { name: 'EMPTY', value: '' },
      { name: 'ODD', value: '' },
    ]);
    expect(json('signals', ours)).toMatchObject({
      actions: [
        { name: 'SIGPIPE', disposition: 'ignore' },
        { name: 'SIGTERM', disposition: 'handler', flags: ['SA_SIGINFO', 'SA_RESTORER', 'SA_RESTART'], mask: ['SIGINT'] },
      ],
      pending: [{ name: 'SIGRTMIN+2', tid: null }],
    });
    expect(json<{ threads: unknown[] }>('threads', ours).threads).toMatchObject([
      { tid: 100, name: 'main', state: 'S', system_call: 'epoll_wait', signal_mask: ['SIGUSR1'] },
    ]);
  });

  it('of maps is sorted as asked', () => {
    const sizes = json<{ maps: { mapped: number }[] }>('maps', ours, '--sort', 'size').maps.map((row) => row.mapped);
    expect(sizes).toEqual(sizes.toSorted((a, b) => b - a));
    const starts = json<{ maps: { start: string }[] }>('maps', ours).maps.map((row) => row.start);
    expect(starts).toEqual(['0x10000', '0x7ff000000000']);
  });

  it('of maps --ranges tells where the bytes of each area come from', async () => {
    const mixed = await warpImage({
      segments: [{ address: 0x11000n, size: 4096n, content: Buffer.alloc(PAGE, 5) }],
      tables: { vmas: [{ start: 0x10000n, end: 0x13000n, kind: 1, protection: 3, stored: 4096n }] },
    });
    const image = imageDirectory(directory, 'mixed', mixed);
    const ranges = [
      { start: '0x10000', end: '0x11000', from: 'zero' },
      { start: '0x11000', end: '0x12000', from: 'image' },
      { start: '0x12000', end: '0x13000', from: 'zero' },
    ];
    expect(json('maps', image, '--ranges')['maps']).toMatchObject([{ start: '0x10000', ranges }]);
    expect(json('maps', image)['maps']).toMatchObject([{ ranges: null }]);
    expect(warpTool('maps', image, '--ranges').stdout).toContain('\n  000000011000-000000012000  4.00 KiB stored\n');
  });

  it('of 70,000 areas is complete', async () => {
    const count = 70_000;
    const many = Array.from({ length: count }, (_, index) => ({ address: BigInt(index + 16) * 8192n, size: 4096n }));
    const large = imageDirectory(directory, 'many', await warpImage({ segments: many }));
    const lines = warpTool('maps', large).stdout.trimEnd().split('\n');
    expect(lines).toHaveLength(count + 2);
    expect(lines.at(-1)).toMatch(/^70000 areas: /);
    expect(warpTool('validate', large).status).toBe(0);
  });
});

describe('validate', () => {
  it('exits with 0 for a good image and 1 for a damaged one, with the place and the mend', () => {
    expect(warpTool('validate', ours)).toMatchObject({ status: 0, stdout: expect.stringContaining('valid') });
    const content = readFileSync(join(ours, 'core.img'));
    content[content.length - 2 * PAGE + 5]! ^= 0xff;
    const damaged = imageDirectory(directory, 'damaged', content);
    const { status, stdout } = warpTool('validate', damaged);
    expect(status).toBe(1);
    expect(stdout).toMatch(/^chunk-content offset 0x[0-9a-f]+, address 0x10000: chunk 0 .*; the content is damaged: copy the image again/);
  });

  it('exits with 1 for a file that is no image and 2 for one that is not there', () => {
    expect(warpTool('validate', '/bin/sh').status).toBe(1);
    expect(warpTool('validate', '/no/such/file').status).toBe(2);
  });
});

describe('gdb-script', () => {
  it('gives a script that needs no escapes from whoever uses it', (context) => {
    if (typeof foreign !== 'string') return context.skip(foreign.skip);
    const reason = missing('gdb');
    if (reason) context.skip(reason);
    const output = join(directory, 'script.gdb');
    expect(warpTool('gdb-script', foreign, '-o', output).status).toBe(0);
    const { stdout, status } = spawnSync('gdb', ['-nx', '-batch', '-x', output, '-ex', 'info threads'], { encoding: 'utf8' });
    expect(status).toBe(0);
    expect(stdout).toMatch(/LWP \d+\) "target"/);
  });

  it('loads no symbols from a file that has changed since', (context) => {
    if (typeof foreign !== 'string') return context.skip(foreign.skip);
    const executable = join(directory, 'target');
    const before = readFileSync(executable);
    expect(warpTool('gdb-script', foreign).stdout).toContain(`file ${executable}`);
    try {
      execFileSync('cc', ['-O2', '-pthread', '-o', `${executable}.new`, join(directory, 'target.c')]);
      execFileSync('mv', [`${executable}.new`, executable]);
      const script = warpTool('gdb-script', foreign).stdout;
      expect(script).not.toContain(`\nfile ${executable}`);
      expect(script).toMatch(/has changed \(build-id [0-9a-f]+, here [0-9a-f]+\)/);
    } finally {
      writeFileSync(executable, before);
    }
  });
});

it('the manifest knows every command', () => {
  const path = join(root, 'oclif.manifest.json');
  expect(existsSync(path)).toBe(true);
  const manifest = JSON.parse(readFileSync(path, 'utf8')) as { commands: Record<string, unknown> };
  expect(Object.keys(manifest.commands).toSorted()).toEqual(Object.keys(COMMANDS).toSorted());
});

it('every command has help, also as `help COMMAND`', () => {
  for (const name of Object.keys(COMMANDS)) {
    expect(warpTool(name, '--help').stdout, name).toMatch(/USAGE/);
  }
  expect(warpTool('help', 'show').stdout).toBe(warpTool('show', '--help').stdout);
});

it('docs/commands.md names every command and every flag', () => {
  const document = readFileSync(join(root, 'docs/commands.md'), 'utf8');
  for (const [name, command] of Object.entries(COMMANDS)) {
    expect(document, name).toMatch(new RegExp(`^\\| \`${name}\\b`, 'm'));
    for (const flag of Object.keys({ ...command.baseFlags, ...command.flags }))
      expect(document, `${name} --${flag}`).toContain(`--${flag}`);
  }
});
