/** Help of every command that there is: complete, short, and with examples that work. */
import { describe, expect, it } from 'vitest';
import { COMMANDS } from '../src/commands/index.js';
import { COMMAND_GROUPS } from '../src/help.js';
import { callsIn, flagsOf, parseCall } from './support/calls.js';
import { warpTool } from './support/cores.js';

const BIN = '<%= config.bin %>';
const commands = Object.entries(COMMANDS);

describe.each(commands)('%s', (name, command) => {
  it('has a summary that fits into the overview', () => {
    expect(command.summary).toMatch(/^[A-Z].*\.$/);
    expect(command.summary!.length, command.summary).toBeLessThanOrEqual(66);
    expect(COMMAND_GROUPS.filter((group) => group.commands.includes(name))).toHaveLength(1);
  });

  it('describes every argument and flag in sentences', () => {
    for (const [key, argument] of Object.entries(command.args)) expect(argument.description, key).toMatch(/\.$/);
    for (const [key, flag] of Object.entries(flagsOf(command))) {
      if (!flag.hidden) expect(flag.description ?? flag.summary, `--${key}`).toMatch(/\.( \[default: .*\])?$/);
    }
  });

  it('has examples, each of which is a call that is understood', async () => {
    const examples = command.examples ?? [];
    const lines = examples.map((example) => (typeof example === 'string' ? example : example.command));
    expect(new Set(lines).size, 'examples').toBeGreaterThanOrEqual(2);
    for (const line of lines) {
      const calls = callsIn(line, BIN);
      expect(
        calls.map(([called]) => called),
        line,
      ).toContain(name);
      for (const call of calls) await parseCall(call);
    }
  });

  it('shows them with --help, -h and `help`', () => {
    const { stdout, status } = warpTool(name, '--help');
    expect(status).toBe(0);
    expect(stdout.startsWith(command.summary!)).toBe(true);
    for (const section of ['USAGE', 'EXAMPLES']) expect(stdout).toContain(`\n${section}\n`);
    for (const [key, flag] of Object.entries(flagsOf(command))) {
      if (!flag.hidden) expect(stdout).toMatch(new RegExp(`^ +(-\\w, )? *--(\\[no-\\])?${key}\\b`, 'm'));
    }
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
    expect(warpTool(name, '-h').stdout).toBe(stdout);
    expect(warpTool('help', name).stdout).toBe(stdout);
  });
});

describe('the overview', () => {
  it('lists every command once, on one line, and fits into 80 columns', () => {
    const { stdout, status } = warpTool('--help');
    expect(status).toBe(0);
    const lines = stdout.split('\n');
    for (const [name, { summary }] of commands) {
      expect(lines.filter((line) => line === `  ${name.padEnd(12)}${summary}`.replaceAll(BIN, 'warp-tool'))).toHaveLength(1);
    }
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80);
  });

  it('is shown with -h, with `help`, and without arguments', () => {
    const { stdout } = warpTool('--help');
    for (const argv of [['-h'], ['help'], []]) expect(warpTool(...argv)).toMatchObject({ status: 0, stdout, stderr: '' });
  });

  it('is no answer to a command that is none', () => {
    expect(warpTool('help', 'shw')).toMatchObject({ status: 2, stdout: '' });
  });
});

it('the version is printed with -v and --version', () => {
  expect(warpTool('--version')).toMatchObject({ status: 0, stdout: expect.stringMatching(/^warp-tool\/\d+\.\d+\.\d+ /) });
  expect(warpTool('-v').stdout).toBe(warpTool('--version').stdout);
});
