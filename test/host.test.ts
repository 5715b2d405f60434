/** `validate --host`: what it says is what a restore then does. */
import { chmodSync, chownSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { schemas } from '../src/schemas/index.js';
import { compile, imageDirectory, ordinaryUser, removeDirectory, scratchDirectory, warpTool } from './support/cores.js';
import { Conversation, toolAsUser } from './support/engine.js';
import { PAGE, warpImage } from './support/synthesise.js';

const directory = scratchDirectory();
const work = join(directory, 'work');
const at = (name: string): string => join(directory, name);

/** Maps, opens and listens; prints the port, then answers lines. */
const PROGRAM = String.raw`
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
  char line[100];
  if (argc != 5 || chdir(argv[4])) return 1;
  int data = open(argv[1], O_RDONLY);
  if (mmap(NULL, 3 * 4096, PROT_READ, MAP_PRIVATE, data, 0) == MAP_FAILED) return 1;
  close(data);
  if (open(argv[2], O_RDWR) < 0 || open(argv[3], O_RDWR) < 0) return 1;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (bind(listener, (void *)&address, size) || listen(listener, 1) || getsockname(listener, (void *)&address, &size)) return 1;
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL) { puts("alive"); fflush(stdout); }
}
`;

interface Document {
  valid: boolean;
  host: { restorable: boolean; obstacles: { check: string; effect: string; problem: string; mend: string }[] };
}

const check = new Ajv2020({ strict: false }).compile(schemas['validate']!.json);
let image: string;
let port: number;

/** As the user who restores: root could open everything. */
function host(of = image): Document {
  const { stdout, stderr, status } = toolAsUser(directory, 'validate', of, '--host', '--json');
  expect(stderr).toBe('');
  const document = JSON.parse(stdout) as Document;
  check(document);
  expect(check.errors).toBeNull();
  expect(status).toBe(document.valid && document.host.restorable ? 0 : 1);
  return document;
}

beforeAll(async () => {
  mkdirSync(work);
  writeFileSync(at('data'), Buffer.alloc(3 * PAGE, 'data '));
  writeFileSync(at('open'), 'content');
  writeFileSync(at('other'), 'content');
  for (const name of ['open', 'other']) chmodSync(at(name), 0o666);
  const executable = compile(directory, 'program', PROGRAM);
  const program = Conversation.start(directory, ['run', '--', executable, at('data'), at('open'), at('other'), work]);
  port = Number(await program.line());
  image = program.checkpoint(directory, 'image');
  await program.ended;
});

afterAll(() => removeDirectory(directory));

it('says that an image can be restored here, and it can', async () => {
  expect(host()).toMatchObject({ valid: true, host: { restorable: true } });
  expect(host().host.obstacles.filter(({ effect }) => effect === 'fails')).toEqual([]);
  expect(toolAsUser(directory, 'validate', image, '--host').stdout).toMatch(/^on this host: can be restored$/m);
  const restored = Conversation.start(directory, ['restore', image]);
  expect(await restored.ask()).toBe('alive');
  await restored.kill();
});

/** Moves a file away and gives the way back. */
function without(path: string): () => void {
  renameSync(path, `${path}.away`);
  return () => {
    rmSync(path, { recursive: true, force: true });
    renameSync(`${path}.away`, path);
  };
}

describe('finds what stops the restore, which then names the same:', () => {
  const cases: [string, string, () => string, () => (() => unknown) | Promise<() => unknown>][] = [
    ['a mapped file that is missing', 'files', () => at('data'), () => without(at('data'))],
    [
      'a mapped file of the same size with other content',
      'files',
      () => at('data'),
      () => {
        const back = without(at('data'));
        writeFileSync(at('data'), Buffer.alloc(3 * PAGE, 'other'));
        return back;
      },
    ],
    [
      'an executable with another build-id',
      'files',
      () => at('program'),
      () => {
        const content = readFileSync(at('program'));
        const { maps } = JSON.parse(warpTool('maps', image, '--json').stdout) as { maps: { name: string; build_id: string | null }[] };
        const buildId = maps.find(({ name }) => name === at('program'))!.build_id!;
        const back = without(at('program'));
        content[content.indexOf(Buffer.from(buildId, 'hex'))]! ^= 1;
        writeFileSync(at('program'), content, { mode: 0o755 });
        return back;
      },
    ],
    ['an open file that is missing', 'descriptors', () => at('open'), () => without(at('open'))],
    [
      'an open file that may not be written',
      'descriptors',
      () => at('other'),
      () => {
        chmodSync(at('other'), 0o444);
        return () => chmodSync(at('other'), 0o666);
      },
    ],
    [
      'an open file that is a directory now',
      'descriptors',
      () => at('open'),
      () => {
        const back = without(at('open'));
        mkdirSync(at('open'));
        return back;
      },
    ],
    ['a working directory that is missing', 'working directory', () => work, () => without(work)],
    [
      'a port that is in use',
      'sockets',
      () => `127.0.0.1:${port}`,
      () =>
        new Promise((resolve) => {
          const server: Server = createServer().listen(port, '127.0.0.1', () => resolve(() => new Promise((done) => server.close(done))));
        }),
    ],
  ];

  it.each(cases)('%s', async (name, rule, what, spoil) => {
    const mend = await spoil();
    try {
      if (name.includes('may not be written') && ordinaryUser.uid !== undefined)
        expect(statSync(at('other')).uid).not.toBe(ordinaryUser.uid);
      const { host: found } = host();
      const obstacles = found.obstacles.filter(({ effect }) => effect === 'fails');
      expect(obstacles).toMatchObject([{ check: rule, problem: expect.stringContaining(what()) }]);
      expect(obstacles[0]!.mend).not.toBe('');
      const { status, stderr } = toolAsUser(directory, 'restore', image);
      expect(status).toBe(2);
      expect(stderr).toContain(what());
      expect(
        stderr
          .trimEnd()
          .split('\n')
          .filter((line) => !/^(info|debug|warn)/.test(line)),
      ).toHaveLength(1);
    } finally {
      await mend();
    }
    expect(host().host.restorable).toBe(true);
  });
});

it('takes a file whose time alone has changed for the same, as the restorer does', async () => {
  const { atime, mtime } = statSync(at('data'));
  utimesSync(at('data'), new Date(0), new Date(0));
  expect(host().host.restorable).toBe(true);
  const restored = Conversation.start(directory, ['restore', image]);
  expect(await restored.ask()).toBe('alive');
  await restored.kill();
  utimesSync(at('data'), atime, mtime);
});

describe('of images that cannot be made here', () => {
  const record = { machine: 62, page_size: PAGE, engine_version: Buffer.from('0.0.1'), executable: Buffer.from('/bin/synthetic') };
  const built = async (name: string, fields: object, kernel?: string): Promise<Document> => {
    const content = await warpImage({
      segments: [{ address: 0x10000n, size: 4096n, content: Buffer.alloc(PAGE, 5) }],
      tables: {
        image: [{ ...record, kernel_release: Buffer.from(kernel ?? '5.15.0'), ...fields }],
        process: [{ pid: 100, cwd: Buffer.from('/'), uid: [process.getuid!(), 0, 0, 0] }],
      },
    });
    const path = imageDirectory(directory, name, content);
    if (ordinaryUser.uid !== undefined) chownSync(join(path, 'core.img'), ordinaryUser.uid, ordinaryUser.gid);
    return host(path);
  };

  it('names register state and features that this processor lacks', async () => {
    const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))![1]!.split(' '));
    const { host: found } = await built('processor', { xstate_features: 1n << 17n, cpu_features: Buffer.alloc(32, 0xff) });
    const amx = found.obstacles.filter(({ check: rule, effect }) => rule === 'processor' && effect === 'fails');
    expect(amx.length).toBe(flags.has('amx_tile') ? 0 : 1);
    const missing = ['fma4', 'xop', 'amx_fp16'].filter((name) => !flags.has(name));
    const differs = found.obstacles.find(({ check: rule, effect }) => rule === 'processor' && effect === 'differs');
    for (const name of missing) expect(differs!.problem).toContain(name);
    expect(differs?.problem ?? '').not.toContain('sse2');
  });

  it('names another page size, and a newer kernel', async () => {
    const { host: found } = await built('pages', { page_size: 16384 }, '99.1.0');
    expect(found.obstacles).toContainEqual(expect.objectContaining({ check: 'page size', effect: 'fails' }));
    expect(found.obstacles).toContainEqual(expect.objectContaining({ check: 'kernel', effect: 'differs' }));
  });

  it('says that faults come first, and that foreign cores cannot be restored', async () => {
    const content = readFileSync(join(image, 'core.img'));
    content[content.length - 1]! ^= 1;
    const damaged = imageDirectory(directory, 'damaged', content);
    const { stdout, status } = warpTool('validate', damaged, '--host');
    expect(status).toBe(1);
    expect(stdout).toMatch(/^image: it has 1 fault/m);
    content.write('XXXXXXXX', 64);
    const foreign = imageDirectory(directory, 'foreign', content);
    expect(warpTool('validate', foreign, '--host').stdout).toMatch(
      /^image: it is a core file of another writer.*only images of `warp-tool checkpoint`/m,
    );
  });
});
