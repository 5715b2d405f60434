/** Descriptors that a restore takes from its caller. */
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { withImage } from '../../src/elf/image.js';
import { makeDirectory, node } from './support/host.js';
import { freePort } from './support/network.js';
import { checkpointAndEnd, killAll, restore, start, warpTool } from './support/program.js';

afterEach(killAll);

const SERVICE = `
const log = require('node:fs').openSync(process.argv[1], 'a');
const server = require('node:http').createServer((request, response) => {
  require('node:fs').writeSync(log, request.url + '\\n');
  response.end('answer');
});
server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('descriptors ' + log + ' ' + server._handle.fd));
`.replaceAll('\\\\', '\\');

/** Somebody who listens; and the descriptor of that. */
async function listen(port: number): Promise<{ server: Server; descriptor: number; port: number }> {
  const server = createServer((connection) => connection.destroy());
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const { fd: descriptor } = (server as unknown as Record<'_handle', { fd: number }>)['_handle'];
  return { server, descriptor, port: (server.address() as { port: number }).port };
}

const close = (server: Server): Promise<void> => new Promise((resolve) => void server.close(() => resolve()));

async function answerOf(port: number, path: string): Promise<string> {
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`).catch(() => null);
    if (answer?.ok) return answer.text();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe('a server with a log file', () => {
  let image: string;
  let oldLog: string;
  let oldPort: number;
  let log: number;
  let listener: number;

  beforeAll(async () => {
    oldLog = join(makeDirectory(), 'log');
    oldPort = await freePort();
    const server = start(node(), ['-e', SERVICE, oldLog, String(oldPort)]);
    [log, listener] = (await server.output(/^descriptors (\d+) (\d+)$/m)).slice(1).map(Number) as [number, number];
    await answerOf(oldPort, '/before');
    image = await checkpointAndEnd(server);
  });

  it('gets a listener and a log of its caller, where its own port is taken; nothing else of the caller', async () => {
    const taken = await listen(oldPort);
    expect(await restore(image).ended).toMatchObject({ code: 2 });
    const given = await listen(0);
    const newLog = join(makeDirectory(), 'log');
    const file = openSync(newLog, 'a');
    const descriptors = [given.descriptor, file, file];
    const restored = restore(image, ['--inherit-fd', `${listener}=3`, '--inherit-fd', `${log}=4`], { descriptors });
    closeSync(file);
    await close(given.server);
    expect(await answerOf(given.port, '/after')).toBe('answer');
    expect(readFileSync(newLog, 'utf8')).toBe('/after\n');
    expect(readFileSync(oldLog, 'utf8')).toBe('/before\n');
    const numbers = await withImage(image, (opened) => [...opened.table('descriptors')].map(({ number }) => number));
    // What the restorer itself needs is closed when the program goes on already.
    const others = (): number[] =>
      readdirSync(`/proc/${restored.pid}/fd`, 'utf8')
        .map(Number)
        .filter((number) => !numbers.includes(number));
    while (others().length > 0) await new Promise((resolve) => setTimeout(resolve, 20));
    await close(taken.server);
  });

  it('gets them through the command line too', async () => {
    const given = await listen(0);
    const restored = warpTool(['restore', image, '--inherit-fd', `${listener}=3`], { descriptors: [given.descriptor] });
    await close(given.server);
    expect(await answerOf(given.port, '/tool')).toBe('answer');
    await restored.kill();
  });

  it.each([
    {
      pair: '9999=2',
      words: /^warp-restore: --inherit-fd: the program has no descriptor 9999: `warp-tool fds` lists those of an image\n$/,
    },
    { pair: '1=77', words: /^warp-restore: --inherit-fd 1=77: descriptor 77 is not open: [^\n]*\n$/ },
    { pair: '1:2', words: /^warp-restore: --inherit-fd 1:2 is not N=FD, two descriptors\n$/ },
  ])('says what is wrong with $pair', async ({ pair, words }) => {
    const restored = restore(image, ['--inherit-fd', pair]);
    expect(await restored.ended).toMatchObject({ code: 2 });
    expect(restored.stderr).toMatch(words);
  });
});
