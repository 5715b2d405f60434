/** Policies: every type and action, which rule counts, what goes wrong at a restore and the rule that its line names. */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { collectFds } from '../../src/commands/fds.js';
import { withImage } from '../../src/elf/image.js';
import { command, makeDirectory, projectFile, user } from './support/host.js';
import { compileJava, jdks } from './support/jvm.js';
import { freePort, untilListening } from './support/network.js';
import { checkpoint, checkpointAndEnd, killAll, restore, run, runCheckpoint, start, warpTool, type Program } from './support/program.js';

const python = ['/usr/bin/python3', command('python3')].find(
  (path) => path !== undefined && spawnSync(path, ['-c', 'import os; os.memfd_create; os.pidfd_open'], user).status === 0,
);

type State = Record<string, string>;

/** Listens for connections, and counts them. */
class Peer {
  count = 0;
  port = 0;
  private readonly server: Server = createServer((connection) => {
    this.count++;
    connection.on('error', () => {});
  });

  async listen(port = 0): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    this.port = (this.server.address() as { port: number }).port;
    return this;
  }

  close(): void {
    this.server.close();
  }
}

let rulesWritten = 0;

/** A file of rules, as several lines or as the `; ` form that messages have. */
function policies(rules: string): string {
  const file = join(makeDirectory(), `rules-${++rulesWritten}`);
  writeFileSync(file, rules.replaceAll('; ', '\n'));
  return file;
}

const stateOf = (text: string): State => JSON.parse(text) as State;

async function firstState(program: Program): Promise<State> {
  return stateOf((await program.output(/^state (.*)$/m))[1]!);
}

function expectOneLine(text: string, pattern: RegExp): void {
  expect(text.trimEnd().split('\n')).toHaveLength(1);
  expect(text).toMatch(pattern);
}

/** The rule at the end of a message. */
const ruleIn = (line: string): string => /(?:with these lines|these lines before (?:it|that rule)): (.*)$/m.exec(line)?.[1] ?? '';

afterEach(killAll);

describe.skipIf(python === undefined)('policies (where python3 is installed; on Debian: apt-get install python3)', () => {
  const directory = makeDirectory();
  const path = (name: string): string => join(directory, name);
  const peer = new Peer();
  let port: number;
  let target: Program;
  let fds: Record<string, number>;
  let before: State;
  let image: string;

  const startTarget = async (extra: string[] = [], environment: Record<string, string> = {}, where = makeDirectory()): Promise<Program> => {
    const started = start(
      python!,
      [projectFile('test/e2e/fixtures/descriptors.py'), where, String(await freePort()), String(peer.port), ...extra],
      { environment },
    );
    await started.output(/^state /m);
    return started;
  };
  const numbersOf = (program: Program): Record<string, number> =>
    JSON.parse(/^fds (.*)$/m.exec(program.stdout)![1]!) as Record<string, number>;

  beforeAll(async () => {
    await peer.listen();
    target = await startTarget([], {}, directory);
    fds = numbersOf(target);
    before = await firstState(target);
    image = await checkpointAndEnd(target);
    port = Number(/127\.0\.0\.1:(\d+)/.exec((await descriptor('listener')).detail.local!)![1]);
  }, 120_000);

  afterAll(() => peer.close());

  const descriptor = (name: string, of = image, number = fds[name]) =>
    withImage(of, (opened) => Promise.resolve(collectFds(opened).descriptors.find(({ fd }) => fd === number)!));

  /** The program's view of its descriptors right after a restore. */
  async function restored(args: string[], of = image): Promise<State & { words: string }> {
    const program = restore(of, args);
    const state = await firstState(program);
    await program.kill();
    await program.ended;
    return { ...state, words: program.stderr };
  }

  async function refused(args: string[], of = image): Promise<string> {
    const program = restore(of, args);
    expect(await program.ended).toMatchObject({ code: 2 });
    expect(program.stdout).toBe('');
    expectOneLine(program.stderr, /^warp-restore: /);
    return program.stderr;
  }

  /** What a restore without rules gives. */
  const usual = (): State => ({ ...before, connection: 'connected' });
  const differing = (state: State): State =>
    Object.fromEntries(
      Object.entries(state).filter(([name, text]) => name !== 'words' && JSON.stringify(text) !== JSON.stringify(usual()[name])),
    );

  it('changes nothing without rules', async () => {
    const { connection, ...state } = await restored([]);
    expect(connection).toMatch(/connected|socket AF_INET/);
    expect(differing(state as State)).toEqual({});
  });

  it.each<{ rules: string; expected: State }>([
    { rules: 'type: file; path: **/app.log; action: close', expected: { 'log/app.log': 'closed' } },
    { rules: 'type: file; action: ignore', expected: {} },
    { rules: 'type: FILE; path: "/**/{data,state}"; action: Reopen', expected: {} },
    { rules: 'type: pipe; action: ignore', expected: {} },
    { rules: 'type: pipe; action: close', expected: { reader: 'closed', writer: 'closed' } },
    { rules: 'type: socket; listening: true; action: close', expected: { listener: 'closed', unix: 'closed' } },
    { rules: 'type: socket; localPath: **/run/*.sock; action: close', expected: { unix: 'closed' } },
    { rules: 'type: socket; family: ip; localAddress: 127.0.0.1; listening: true; action: close', expected: { listener: 'closed' } },
    { rules: 'type: socket; localAddress: 127.0.0.2; action: close', expected: {} },
    { rules: 'type: socket; family: unix; listening: false; action: close', expected: { one: 'closed', other: 'closed' } },
    { rules: 'type: socket; family: ipv6; action: close', expected: {} },
    { rules: 'type: filedescriptor; regex: /memfd:.*; action: close', expected: { memory: 'closed' } },
    { rules: 'type: filedescriptor; regex: anon_inode:.eventpoll.; action: close', expected: { poll: 'closed' } },
    // The first that matches counts.
    { rules: 'type: file; path: **/app.log; action: close\n---\ntype: file; action: ignore', expected: { 'log/app.log': 'closed' } },
    { rules: 'type: file; action: ignore\n---\ntype: file; path: **/app.log; action: close', expected: {} },
  ])('$rules', async ({ rules, expected }) => {
    const { connection: _, ready, ...state } = await restored(['--policies', policies(rules)]);
    const { ready: __, ...found } = differing({ ...state, connection: usual()['connection']! });
    expect(found).toEqual(expected);
    // What is closed is no longer watched; the rest is: the pipe has unread bytes.
    if (state['poll'] !== 'closed') expect(ready).toEqual(state['reader'] === 'closed' ? [] : [fds['reader']]);
  });

  it.each(['ignore', 'close'])('a descriptor by its number: %s', async (action) => {
    const state = await restored(['--policies', policies(`type: filedescriptor; value: ${fds['one']}; action: ${action}`)]);
    expect(state['one']).toBe(action === 'close' ? 'closed' : before['one']);
    expect(state['other']).toBe(before['other']);
  });

  it('a standard stream by its number only', async () => {
    const all = await restored(['--policies', policies('type: socket; action: close')]);
    expect(all['extra']).toBe(before['extra']);
    const closed = await restored(['--policies', policies('type: filedescriptor; value: 2; action: close')]);
    expect(closed).toMatchObject({ stderr: 'closed', extra: before['extra'] });
  });

  it('a connection is made again; sockets without a rule are not', async () => {
    const count = peer.count;
    expect((await restored(['--policies', policies(`type: socket; remotePort: ${peer.port}; action: reopen`)]))['connection']).toBe(
      'connected',
    );
    expect(peer.count).toBe(count + 1);
    await restored(['--policies', policies(`type: socket; remotePort: ${peer.port}; action: ignore`)]);
    expect(peer.count).toBe(count + 1);
  });

  it.each([
    { rules: 'type: file; path: **/data; action: error', name: 'data' },
    { rules: 'type: pipe; action: error', name: 'reader' },
    { rules: 'type: socket; listening: true; family: ip; action: error', name: 'listener' },
    { rules: 'type: filedescriptor; regex: /memfd:kept.*; action: error', name: 'memory' },
  ])('$rules: refused, and the rule in the line put before it helps', async ({ rules, name }) => {
    const file = policies(rules);
    const line = await refused(['--policies', file]);
    expect(line).toContain(`descriptor ${fds[name]} (`);
    expect(line).toContain(`${file}:1`);
    const state = await restored([
      '--policies',
      policies(`${ruleIn(line)}\n---\n${name === 'reader' ? 'type: file' : rules.split('; action')[0]}; action: ignore`),
    ]);
    expect(state[name]).toBe('closed');
  });

  describe('what is not as it was', () => {
    const undo: (() => void)[] = [];
    afterEach(() => undo.splice(0).forEach((step) => step()));
    const moveAway = (name: string): void => {
      renameSync(path(name), path(`${name}.moved`));
      undo.push(() => {
        rmSync(path(name), { recursive: true, force: true });
        renameSync(path(`${name}.moved`), path(name));
      });
    };
    const replace = (name: string, text: string): void => {
      const old = readFileSync(path(name));
      moveAway(name);
      writeFileSync(path(name), text);
      chmodSync(path(name), 0o666);
      expect(old.toString()).not.toBe(text);
    };

    it.each<{ what: string; name: string; change: () => void | Promise<unknown>; reason: RegExp; becomes: string; rule: RegExp }>([
      {
        what: 'a log that was moved',
        name: 'log/app.log',
        change: () => moveAway('log/app.log'),
        reason: /cannot be opened: No such file/,
        becomes: 'log/app.log 0',
        rule: /action: reopen$/,
      },
      {
        what: 'a directory that is missing',
        name: 'log/app.log',
        change: () => moveAway('log'),
        reason: /its directory is not there/,
        becomes: '/dev/null',
        rule: /action: ignore$/,
      },
      {
        what: 'a file for reading that is gone',
        name: 'data',
        change: () => moveAway('data'),
        reason: /cannot be opened: No such file/,
        becomes: '/dev/null',
        rule: /action: ignore$/,
      },
      {
        what: 'a file that is shorter than the offset',
        name: 'state',
        change: () => replace('state', 'abc'),
        reason: /is shorter than where the program stands in it: 3 bytes, and it goes on at 6/,
        becomes: 'state 3',
        rule: /action: reopen$/,
      },
      {
        what: 'a file for reading that is shorter than it was',
        name: 'data',
        change: () => replace('data', '0123456'),
        reason: /has changed: 7 bytes, and 10 at the checkpoint/,
        becomes: 'data 3',
        rule: /action: reopen$/,
      },
      {
        what: 'a file for reading with another content',
        name: 'data',
        change: () => {
          replace('data', '0123456780');
          utimesSync(path('data'), 1, 1);
        },
        reason: /has changed since the checkpoint/,
        becomes: 'data 3',
        rule: /action: reopen$/,
      },
      {
        what: 'a directory in its place',
        name: 'data',
        change: () => {
          moveAway('data');
          mkdirSync(path('data'));
        },
        reason: /is another kind of file/,
        becomes: '/dev/null',
        rule: /action: ignore$/,
      },
      {
        what: 'a port in use',
        name: 'listener',
        change: async () => {
          const other = await new Peer().listen(port);
          undo.push(() => other.close());
        },
        reason: /cannot bind to 127\.0\.0\.1:\d+: Address already in use/,
        becomes: 'listens AF_UNIX',
        rule: /localPort: \d+; action: ignore$/,
      },
      {
        what: 'the directory of a Unix socket that is missing',
        name: 'unix',
        change: () => moveAway('run'),
        reason: /cannot bind to .*app\.sock: its directory is not there/,
        becomes: 'listens AF_UNIX',
        rule: /localPath: .*app\.sock; action: ignore$/,
      },
    ])('$what: one line, whose rule helps', async ({ name, change, reason, becomes, rule }) => {
      await change();
      const line = await refused([]);
      expect(line).toMatch(reason);
      expect(line).toContain(`descriptor ${fds[name]}: `);
      expect(ruleIn(line)).toMatch(rule);
      const state = await restored(['--policies', policies(ruleIn(line))]);
      expect(state[name]).toBe(becomes);
      // Only for what was there when the image was made: the other descriptors are as ever.
      expect(state['writer']).toBe(before['writer']);
      const quiet = await restored(['--policies', policies(`${ruleIn(line)}; warn: false`)]);
      expect(quiet[name]).toBe(becomes);
      expect(quiet.words).toBe('');
      if (becomes === '/dev/null' || becomes === 'listens AF_UNIX')
        expect(state.words).toMatch(/^warp-restore: warn: descriptor \d+: [^\n]*instead\n$/);
      expect((await restored(['--policies', policies(ruleIn(line).replace(/action: \w+$/, 'action: close'))]))[name]).toBe('closed');
    });

    it('a file for reading that has only grown is the same', async () => {
      replace('data', '0123456789 and more');
      expect((await restored([]))['data']).toBe('data 3');
    });

    it('a connection that nobody takes any more', async () => {
      const file = policies(`type: socket; remotePort: ${peer.port}; action: reopen`);
      const own = await checkpointAndEnd(await startTarget(), ['--policies', file]);
      const closed = policies('type: socket; listening: true; action: close');
      const { port: free } = peer;
      peer.close();
      undo.push(() => void peer.listen(free));
      // Those of the restore go first; the image's own hold for the rest.
      const line = await refused(['--policies', closed], own);
      expect(line).toMatch(/cannot connect to 127\.0\.0\.1:\d+ again: Connection refused/);
      const state = await restored(['--policies', policies(`${ruleIn(line)}\n---\ntype: socket; listening: true; action: close`)], own);
      expect(state['connection']).not.toBe('closed');
      expect(state['listener']).toBe('closed');
    });
  });

  describe('at a checkpoint', () => {
    it('rules are kept in the image, shown, and go behind those of the restore', async () => {
      const program = await startTarget();
      const numbers = numbersOf(program);
      const file = policies('# comment\ntype: file\npath: **/app.log\naction: close\n---\ntype: pipe\naction: ignore\nwarn: false\n');
      const own = await checkpointAndEnd(program, ['--policies', file]);
      expect((await descriptor('', own, numbers['log/app.log'])).policy).toEqual({
        type: 'file',
        action: 'close',
        warn: true,
        rule: 'type: file\npath: **/app.log\naction: close',
        file,
        line: 2,
      });
      expect((await descriptor('', own, numbers['reader'])).policy).toMatchObject({ type: 'pipe', action: 'ignore', warn: false, line: 6 });
      expect((await descriptor('', own, numbers['data'])).policy).toBeNull();
      const shown = warpTool(['show', own]);
      await shown.ended;
      expect(shown.stdout).toContain(`2 rules: close fd ${numbers['log/app.log']}, ignore fd ${numbers['reader']} ${numbers['writer']}`);
      const listed = warpTool(['fds', own]);
      await listed.ended;
      expect(listed.stdout).toMatch(/app\.log.*policy close/);
      const valid = warpTool(['validate', own]);
      expect(await valid.ended).toMatchObject({ code: 0 });
      expect((await restored([], own))['log/app.log']).toBe('closed');
      expect((await restored(['--policies', policies('type: file; path: **/app.log; action: reopen')], own))['log/app.log']).toBe(
        before['log/app.log'],
      );
    });

    it.each([
      { rules: 'type: file; path: **/data; action: error', name: 'data' },
      { rules: 'type: pipe; action: error', name: 'reader' },
      { rules: 'type: socket; family: unix; listening: true; action: error', name: 'unix' },
      { rules: 'type: filedescriptor; regex: .*eventpoll.*; action: error', name: 'poll' },
    ])('$rules: it is refused, the program goes on, and the rule in the line helps', async ({ rules, name }) => {
      const program = await startTarget();
      const file = policies(rules);
      const into = makeDirectory();
      const result = await runCheckpoint(program.pid, into, ['--policies', file]);
      expect(result.code).toBe(2);
      expectOneLine(result.stderr, new RegExp(`descriptor ${numbersOf(program)[name]} \\(.*${file}:1`));
      await program.goesOn(/^state /gm);
      const rest = name === 'reader' ? 'type: pipe; action: ignore' : rules;
      expect((await runCheckpoint(program.pid, into, ['--policies', policies(`${ruleIn(result.stderr)}\n---\n${rest}`)])).stderr).toBe('');
    });

    it('what cannot be kept is left out where a rule allows it', async () => {
      const program = await startTarget(['pidfd']);
      const number = numbersOf(program)['pidfd']!;
      const into = makeDirectory();
      const result = await runCheckpoint(program.pid, into);
      expect(result.code).toBe(2);
      expectOneLine(result.stderr, new RegExp(`descriptor ${number} \\(anon_inode:\\[pidfd\\]\\) is of a kind that cannot be kept`));
      const own = await checkpoint(program, ['--policies', policies(ruleIn(result.stderr)), '--leave-running']);
      const closed = await checkpointAndEnd(program, ['--policies', policies(`type: filedescriptor; value: ${number}; action: close`)]);
      expect(await descriptor('', own, number)).toMatchObject({ kind: 'not-kept', policy: { action: 'ignore' } });
      expect((await restored([], own))['pidfd']).toBe('/dev/null');
      expect((await restored([], closed))['pidfd']).toBe('closed');
      expect(await refused(['--policies', policies('type: filedescriptor; regex: .*pidfd.*; action: error')], closed)).toMatch(
        /must not come back/,
      );
    });

    it('a pipe to another process is left out where a rule allows it', async () => {
      const program = await startTarget(['outside']);
      const number = numbersOf(program)['outside'];
      const result = await runCheckpoint(program.pid, makeDirectory());
      expect(result.code).toBe(2);
      expectOneLine(result.stderr, new RegExp(`descriptor ${number} \\(pipe:.*is a pipe whose other end another process holds`));
      const own = await checkpointAndEnd(program, ['--policies', policies('type: pipe; action: ignore')]);
      expect(await restored([], own)).toMatchObject({ outside: '/dev/null', reader: before['reader'] });
    });

    it('a removed file: its content, its path, or nothing', async () => {
      const where = makeDirectory();
      const program = await startTarget(['removed'], {}, where);
      const under = (action: string): string[] => ['--policies', policies(`type: file; path: **/removed; action: ${action}`)];
      const kept = await checkpoint(program, ['--leave-running']);
      const byName = await checkpoint(program, ['--leave-running', ...under('reopen')]);
      const closed = await checkpointAndEnd(program, under('close'));
      expect((await restored([], kept))['removed']).toMatch(/ 4$/);
      expect((await restored([], closed))['removed']).toBe('closed');
      expect(await descriptor('', closed, numbersOf(program)['removed'])).toMatchObject({ kind: 'not-kept' });
      expect((await restored([], byName))['removed']).toBe('removed 0');
      expect(existsSync(join(where, 'removed'))).toBe(true);
    });

    it('a lock of a closed file is not taken', async () => {
      const program = await startTarget(['flock']);
      const own = await checkpointAndEnd(program);
      const first = restore(own);
      await firstState(first);
      const closing = [
        '--policies',
        policies('type: file; path: **/state; action: close\n---\ntype: socket; listening: true; action: close'),
      ];
      expect((await restored(closing, own))['state']).toBe('closed');
      await first.kill();
    });

    it('rules of the start, by run and by the environment', async () => {
      const rules = policies('type: file; path: **/app.log; action: close');
      const program = await startTarget([], { WARP_POLICIES: rules });
      rmSync(rules);
      // Those of the checkpoint go first.
      const reopened = await checkpoint(program, ['--leave-running', '--policies', policies('type: file; path: **/*.log; action: reopen')]);
      await program.goesOn(/^state /gm);
      const own = await checkpointAndEnd(program);
      expect((await restored([], reopened))['log/app.log']).toBe(before['log/app.log']);
      const again = restore(own);
      expect((await firstState(again))['log/app.log']).toBe('closed');
      // They hold for later generations too: nothing is there to be closed, and all else goes on.
      expect((await restored([], await checkpointAndEnd(again)))['log/app.log']).toBe('closed');
      const listed = warpTool(['run', '--policies', policies('type: pipe; action: ignore'), '--', '/usr/bin/env']);
      await listed.ended;
      expect(listed.stdout).toMatch(/^WARP_POLICIES=\/.*rules-\d+$/m);
    });
  });

  describe('a file that is wrong', () => {
    const wrong = 'type: file\n\n# comment\npath: /x\naction: opne\n';
    const words = (file: string): RegExp =>
      new RegExp(`^[a-z-]+: ${file}:5: action opne is not known: write error, ignore, close or reopen\n$`);

    it('is told with line, reason and mend by every way that takes one', async () => {
      const file = policies(wrong);
      const program = await startTarget();
      for (const client of [
        restore(image, ['--policies', file]),
        warpTool(['restore', image, '--policies', file]),
        warpTool(['run', '--policies', file, '--', '/bin/true']),
        run(projectFile('native/build/warp-checkpoint'), ['--check-policies', file]),
        run(projectFile('native/build/warp-checkpoint'), [String(program.pid), '--to', makeDirectory(), '--policies', file]),
      ]) {
        expect(await client.ended).toMatchObject({ code: 2 });
        expect(client.stderr).toMatch(words(file));
      }
      await program.goesOn(/^state /gm);
    });

    it('fails the checkpoint of a program that was started with it', async () => {
      const file = policies(wrong);
      const program = await startTarget([], { WARP_POLICIES: file });
      const result = await runCheckpoint(program.pid, makeDirectory());
      expect(result.code).toBe(2);
      expect(result.stderr).toMatch(words(file));
      const none = await startTarget([], { WARP_POLICIES: '/no/such/file' });
      expectOneLine((await runCheckpoint(none.pid, makeDirectory())).stderr, /\/no\/such\/file: the policies cannot be read: No such file/);
      await none.goesOn(/^state /gm);
    });
  });
});

const java = command('javac') && existsSync(new URL('../../native/build/warp-crac.jar', import.meta.url)) ? jdks()[0] : undefined;

it.skipIf(java === undefined)(
  'the property of CRaC, on a stock JDK (where one is installed; on Debian: apt-get install default-jdk-headless)',
  async () => {
    const directory = makeDirectory();
    const log = join(directory, 'log');
    const rules = policies('type: file; path: **/log; action: close');
    const line = [
      join(java!.home, 'bin/java'),
      '-Xmx64m',
      `-Djdk.crac.resource-policies=${rules}`,
      '-cp',
      compileJava('Logs'),
      'Logs',
      log,
    ];
    const program = warpTool(['run', '--', ...line]);
    await program.output(/^tick 3 written$/m);
    rmSync(rules);
    const image = await checkpointAndEnd(program);
    const closed = restore(image);
    await closed.output(/^tick \d+ failed: Bad file descriptor$/m);
    await closed.kill();
    renameSync(log, `${log}.1`);
    const argument = `-Djdk.crac.resource-policies=${policies('type: file; path: **/log; action: reopen')}`;
    const reopened = restore(image, ['--', argument]);
    await reopened.output(/^tick \d+ written$/m);
    expect(readFileSync(log, 'utf8')).toMatch(/^\d+\n/);
  },
);

const redis = command('redis-server');

it.skipIf(redis === undefined)(
  'the append-only file of Redis, rotated away (where it is installed; on Debian: apt-get install redis-server)',
  async () => {
    const directory = makeDirectory();
    const port = await freePort();
    const program = start(redis!, ['--port', String(port), '--dir', directory, '--appendonly', 'yes', '--save', '', '--bind', '127.0.0.1']);
    await program.output(/Ready to accept connections/);
    const image = await checkpointAndEnd(program);
    const file = (await withImage(image, (opened) => Promise.resolve(collectFds(opened).descriptors))).find(({ path }) =>
      path.endsWith('.aof'),
    )!.path;
    renameSync(file, `${file}.moved`);
    const refused = restore(image);
    expect(await refused.ended).toMatchObject({ code: 2 });
    expectOneLine(refused.stderr, /descriptor \d+: [^ ]*\.aof cannot be opened: No such file or directory \(ENOENT\): put it there; /);
    restore(image, ['--policies', policies(ruleIn(refused.stderr))]);
    await untilListening(port);
    const client = connect(port, '127.0.0.1');
    client.end('*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n');
    let answer = '';
    for await (const data of client) answer += String(data);
    expect(answer).toBe('+OK\r\n');
    expect(readFileSync(file, 'utf8')).toContain('value');
  },
);
