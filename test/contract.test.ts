/** What every command owes a script, whatever it does: exit codes, one-line errors, one JSON document, no colours that nobody asked for. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import type { Command } from '@oclif/core';
import { imageArgument } from '../src/commands/base.js';
import { COMMANDS } from '../src/commands/index.js';
import { imageDirectory, missing, removeDirectory, root, scratchDirectory, warpTool } from './support/cores.js';
import { foreignCore, PAGE, prpsinfoNote, prstatusNote, warpImage } from './support/synthesise.js';

const directory = scratchDirectory();
const output = join(directory, 'output');
let ours: string;
let foreign: string;

beforeAll(async () => {
  const segments = [{ address: 0x10000n, size: BigInt(PAGE), content: Buffer.alloc(PAGE, 'some text ') }];
  const image = await warpImage({ segments, tables: { threads: [{ tid: 100, flags: 1, state: 83, name: Buffer.from('main') }] } });
  ours = imageDirectory(directory, 'image', image);
  foreign = join(directory, 'core');
  writeFileSync(foreign, foreignCore({ segments, notes: [prstatusNote(100), prpsinfoNote(100, 'main')] }));
  mkdirSync(join(directory, 'empty-directory'));
  writeFileSync(join(directory, 'empty-file'), '');
  writeFileSync(join(directory, 'text'), 'no image at all\n'.repeat(100));
});

afterAll(() => removeDirectory(directory));

const commands = Object.entries(COMMANDS);
const flagsOf = (command: Command.Class): string[] => Object.keys({ ...command.baseFlags, ...command.flags });
const takesImage = (command: Command.Class): boolean => Object.values(command.args).includes(imageArgument);
const takesJson = (command: Command.Class): boolean => flagsOf(command).includes('json');

/** A call with all that the command requires: `image` for its images, a place in the scratch directory for its results. */
function call(name: string, image: string): string[] {
  const command = COMMANDS[name]!;
  const argv = [name];
  for (const [key, argument] of Object.entries(command.args)) {
    if (!argument.required) continue;
    if (argument === imageArgument || key === 'b') argv.push(image);
    else if (key === 'url') argv.push(`file://${output}`);
    else argv.push(argument.options?.[0] ?? output);
  }
  for (const [key, flag] of Object.entries({ ...command.baseFlags, ...command.flags })) {
    if (!flag.required) continue;
    argv.push(`--${key}`);
    if (flag.type === 'option') argv.push(flag.options?.[0] ?? (key === 'runs' ? '1' : output));
  }
  if (name === 'mem') argv.push('--strings');
  return argv;
}

/** The line of a call that must fail: exit status 2, one line on stderr, and with --json one document that says the same. */
function failure(argv: string[], json: boolean): string {
  const { status, stdout, stderr } = warpTool(...argv);
  expect([status, stdout], argv.join(' ')).toEqual([2, '']);
  expect(stderr).toMatch(/^warp-[a-z]+: [^\n]+\n$/);
  if (json) {
    const again = warpTool(...argv, '--json');
    const document = JSON.parse(again.stdout) as { error: { message: string } };
    expect(document).toEqual({ error: { message: stderr.replace(/^warp-tool: /, '').trimEnd(), exit_code: 2 } });
    expect([again.status, again.stderr]).toEqual([2, stderr]);
  }
  return stderr;
}

describe.each(commands)('%s', (name, command) => {
  const json = takesJson(command);

  it('exits with 2 and one line when it is called wrongly', () => {
    expect(failure([name, '--no-such-flag'], json)).toMatch(/has no flag --no-such-flag/);
    if (command.strict !== false && name !== 'run') {
      const full = Object.values(command.args).map((argument) => argument.options?.[0] ?? '1');
      expect(failure([name, ...full, 'one-too-many'], json)).toMatch(/unexpected argument: one-too-many|missing flag/);
    }
    if (Object.values(command.args).some((argument) => argument.required)) expect(failure([name], json)).toMatch(/missing argument [A-Z]/);
  });

  it('shows where an error comes from with --debug only', () => {
    const argv = [name, '--no-such-flag', '--debug'];
    expect(warpTool(...argv).stderr).toMatch(/\n +at /);
  });

  it.runIf(takesImage(command))('exits with 2 and one line, and leaves nothing behind, when the image is none', () => {
    for (const place of ['no-such-place', 'empty-directory', 'empty-file', 'text']) {
      const path = join(directory, place);
      // That a file is no image is what `validate` is there to find out.
      const finding = name === 'validate' && (place === 'empty-file' || place === 'text');
      if (finding) expect(warpTool(...call(name, path))).toMatchObject({ status: 1, stderr: '', stdout: expect.stringContaining(path) });
      else expect(failure(call(name, path), json)).toMatch(path);
      expect(existsSync(output), 'output').toBe(false);
    }
    expect(readdirSync(directory).toSorted()).toEqual(['core', 'empty-directory', 'empty-file', 'image', 'text']);
  });
});

/** These become or open another program. */
const OTHERS = ['restore', 'gdb', 'explore', 'optimize'];
/** These need an image that is packed, or a key. */
const UNPACKING = ['decompress', 'encrypt', 'decrypt'];
/** These need an object store. */
const STORES = ['push', 'pull', 'list'];
const inspecting = commands.filter(([name, command]) => takesImage(command) && ![...OTHERS, ...UNPACKING, ...STORES].includes(name));

describe.each(inspecting)('%s on an image', (name, command) => {
  const run = (image: string, ...flags: string[]): ReturnType<typeof warpTool> => {
    const result = warpTool(...call(name, image), ...flags);
    removeDirectory(output);
    return result;
  };

  it.runIf(takesJson(command))('prints one JSON document, and nothing else, with --json', () => {
    for (const image of [ours, foreign]) {
      const { status, stdout, stderr } = run(image, '--json');
      const document = JSON.parse(stdout) as { error?: { message: string } };
      expect(document, stdout).toBeTypeOf('object');
      // Some things only our images hold, and some only foreign ones lack.
      if (image === foreign && document.error) expect([status, stderr]).toEqual([2, `warp-tool: ${document.error.message}\n`]);
      else expect([[0, 1].includes(status!), stderr], stdout).toEqual([true, '']);
    }
  });

  it('is silent on stderr in a pipe, and colourless there, with NO_COLOR and with --no-color', () => {
    const escape = '\x1b';
    const plain = run(ours);
    expect([[0, 1].includes(plain.status!), plain.stderr.replace(/^[^\n]* in [^\n]*\n$/, '')]).toEqual([true, '']);
    expect(plain.stdout).not.toContain(escape);
    const coloured = (env: Record<string, string>, ...flags: string[]): string => {
      const { stdout, stderr } = spawnSync(process.execPath, [join(root, 'bin/run.js'), ...call(name, ours), ...flags], {
        encoding: 'utf8',
        env: { ...process.env, ...env },
      });
      removeDirectory(output);
      return stdout + stderr;
    };
    expect(coloured({ FORCE_COLOR: '1', NO_COLOR: '1' })).not.toContain(escape);
    expect(coloured({ FORCE_COLOR: '1', NO_COLOR: '' }, '--no-color')).not.toContain(escape);
  });
});

describe('on a terminal', () => {
  /** What a terminal shows of a call, with its control sequences. */
  const onTerminal = (context: TestContext, env: Record<string, string>, ...argv: string[]): string => {
    const reason = missing('script');
    if (reason) context.skip(reason);
    const { NO_COLOR: _, FORCE_COLOR: __, ...inherited } = process.env;
    const command = [process.execPath, join(root, 'bin/run.js'), ...argv].map((word) => `'${word}'`).join(' ');
    return spawnSync('script', ['-qec', command, '/dev/null'], {
      encoding: 'utf8',
      env: { ...inherited, TERM: 'xterm', ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    }).stdout;
  };

  it('output is coloured, unless NO_COLOR, --no-color or a dumb terminal forbid it', (context) => {
    expect(onTerminal(context, {}, 'show', ours)).toContain('\x1b[1m');
    expect(onTerminal(context, {}, 'show', '--no-such-flag')).toContain('\x1b[31mwarp-tool:');
    for (const plain of [
      onTerminal(context, { NO_COLOR: '1' }, 'show', ours),
      onTerminal(context, {}, 'show', ours, '--no-color'),
      onTerminal(context, { TERM: 'dumb' }, 'show', ours),
      onTerminal(context, { NO_COLOR: '1' }, 'show', '--no-such-flag'),
    ]) {
      expect(plain.length).toBeGreaterThan(20);
      expect(plain).not.toContain('\x1b');
    }
  });

  it('long work shows its progress and clears it again; in a pipe it is silent', (context) => {
    const shown = onTerminal(context, {}, 'mem', ours, '--text', 'no such text');
    // oxlint-disable-next-line no-control-regex
    expect(shown).toMatch(/\r\x1b\[Ksearching .*%.* of .*\r\x1b\[K.*0 matches/s);
    expect(warpTool('mem', ours, '--text', 'no such text').stderr).toBe('0 matches in 4.00 KiB\n');
  });
});

it('every image is taken as an argument that this file knows', () => {
  const named = commands.filter(([, command]) => Object.keys(command.args).includes('image')).map(([name]) => name);
  expect(named.filter((name) => !takesImage(COMMANDS[name]!))).toEqual([]);
});
