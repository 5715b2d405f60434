/** Debian's redis-server with 100,000 keys: data intact, new clients are served. */
import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import { command, makeDirectory } from './support/host.js';
import { writeKey } from './support/keys.js';
import { freePort, untilListening } from './support/network.js';
import { checkpoint, checkpointAndEnd, killAll, type Program, restore, run, start, warpTool } from './support/program.js';

const server = command('redis-server');
const client = command('redis-cli');
const keys = 100_000;
afterEach(killAll);

async function ask(port: number, ...words: string[]): Promise<string> {
  const process = run(client!, ['-p', String(port), ...words]);
  const ended = await process.ended;
  if (ended.code !== 0) throw new Error(`redis-cli ${words.join(' ')}: ${process.stdout}${process.stderr}`);
  return process.stdout.trim();
}

async function expectServes(port: number, digest: string): Promise<void> {
  await untilListening(port);
  expect(await ask(port, 'PING')).toBe('PONG');
  expect(await ask(port, 'DEBUG', 'DIGEST')).toBe(digest);
  expect(await ask(port, 'DBSIZE')).toBe(String(keys + 2));
  expect(await ask(port, 'GET', 'key:77777')).toBe('value:77777');
  expect(await ask(port, 'SET', 'new', 'value')).toBe('OK');
  expect(await ask(port, 'INCR', 'counter')).toBe('6');
  expect(await ask(port, 'EVAL', 'return redis.call("LLEN", "list")', '0')).toBe('1000');
  expect(await ask(port, 'DEL', 'new')).toBe('1');
}

/** A server with its keys, a counter and a list. */
async function startFilled(): Promise<{ target: Program; port: number; digest: string }> {
  const port = await freePort();
  const options = [
    '--port',
    String(port),
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--appendonly',
    'no',
    '--dir',
    makeDirectory(),
    '--enable-debug-command',
    'yes',
  ];
  const target = start(server!, options);
  await target.output(/Ready to accept connections/);
  await ask(port, 'DEBUG', 'POPULATE', String(keys), 'key');
  await ask(port, 'SET', 'counter', '5');
  await ask(port, 'EVAL', 'for i = 1, 1000 do redis.call("RPUSH", "list", i) end', '0');
  const digest = await ask(port, 'DEBUG', 'DIGEST');
  expect(digest).toMatch(/^[1-9a-f][0-9a-f]{39}$/);
  return { target, port, digest };
}

describe.skipIf(!server || !client)('redis-server (where installed; on Debian: apt-get install redis-server)', () => {
  it('comes back three times with 100,000 keys', async () => {
    const { target, port, digest } = await startFilled();
    const running = await checkpoint(target, ['--leave-running']);
    expect(await ask(port, 'DEBUG', 'DIGEST')).toBe(digest);
    const image = await checkpointAndEnd(target);
    for (let i = 0; i < 3; i++) {
      const restored = restore(image);
      await expectServes(port, digest);
      await ask(port, 'FLUSHALL'); // jemalloc gives memory back and takes it again
      await ask(port, 'DEBUG', 'POPULATE', String(keys), 'other');
      expect(await ask(port, 'GET', 'other:5')).toBe('value:5');
      await restored.kill();
    }
    restore(running);
    await expectServes(port, digest);
    await ask(port, 'SHUTDOWN', 'NOSAVE').catch(() => {});
  });

  it('comes back from an encrypted image that was put in order, read at once or while it serves', async () => {
    const { target, port, digest } = await startFilled();
    const key = ['--encryption-key-file', writeKey(randomBytes(32))];
    const image = await checkpointAndEnd(target, ['--compression', 'lz4', '--chunk-size', '64', ...key]);
    const trained = warpTool(['optimize', image, '--runs', '2', ...key, '--until', `${client} -p ${port} PING`]);
    expect([(await trained.ended).code, trained.stderr]).toEqual([0, '']);
    for (const flags of [['--no-concurrent'], ['--concurrent'], ['--concurrent', '--load-faults', 'signals', '--load-concurrency', '0']]) {
      const restored = restore(image, [...flags, ...key]);
      await expectServes(port, digest);
      await restored.kill();
    }
  });
});
