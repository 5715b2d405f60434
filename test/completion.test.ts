/** Shell completion in the shells themselves, and manual pages through the formatters. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { COMMANDS } from '../src/commands/index.js';
import { missing, removeDirectory, scratchDirectory, warpTool } from './support/cores.js';

const directory = scratchDirectory();
afterAll(() => removeDirectory(directory));

function script(shell: string): string {
  const { stdout, status, stderr } = warpTool('completion', shell);
  expect([status, stderr]).toEqual([0, '']);
  const path = join(directory, `completion.${shell}`);
  writeFileSync(path, stdout);
  return path;
}

describe('completion in bash', () => {
  /** What bash offers behind these words. */
  const offers = (...words: string[]): string[] => {
    const list = words.map((word) => `'${word}'`).join(' ');
    const source = `source '${script('bash')}'; COMP_WORDS=(${list}); COMP_CWORD=${words.length - 1}; _warp_tool; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return execFileSync('bash', ['--norc', '-c', source], { encoding: 'utf8', cwd: directory })
      .split('\n')
      .filter((line) => line !== '');
  };

  it('offers all commands, and those that begin with what is there', () => {
    expect(offers('warp-tool', '').toSorted()).toEqual(Object.keys(COMMANDS).toSorted());
    expect(offers('warp-tool', 'th')).toEqual(['threads']);
  });

  it('offers all flags of every command', () => {
    for (const [name, command] of Object.entries(COMMANDS)) {
      const flags = Object.keys({ ...command.baseFlags, ...command.flags }).map((flag) => `--${flag}`);
      const offered = offers('warp-tool', name, '--');
      for (const flag of flags) expect(offered, name).toContain(flag);
    }
  });

  it('offers the values of flags, names of commands, and files', () => {
    mkdirSync(join(directory, 'an-image'), { recursive: true });
    expect(offers('warp-tool', 'maps', '--sort', '')).toEqual(['size', 'rss', 'addr']);
    expect(offers('warp-tool', 'man', 'decod')).toEqual(['decode']);
    expect(offers('warp-tool', 'completion', '')).toEqual(['bash', 'zsh', 'fish']);
    expect(offers('warp-tool', 'show', 'an-')).toEqual(['an-image']);
    expect(offers('warp-tool', 'mem', 'an-image', '--in', 'x', '--pro')).toEqual(['--prot']);
  });
});

it('completion in zsh offers commands, flags and values', (context) => {
  const reason = missing('zsh');
  if (reason) context.skip(reason);
  expect(spawnSync('zsh', ['-f', '-n', script('zsh')], { encoding: 'utf8' })).toMatchObject({ status: 0, stderr: '' });
  // In a terminal of its own, since zsh completes in its line editor only.
  const offers = (line: string, expected: string): string => {
    const source = [
      'zmodload zsh/zpty',
      'zpty shell zsh -f -i',
      `zpty -w shell "PS1=; autoload -U compinit && compinit -D -u; LISTMAX=1000; COLUMNS=200; source '${script('zsh')}'; bindkey '^I' list-choices; echo rea''dy"`,
      'zpty -r -m shell text "*ready*"',
      `zpty -w -n shell $'${line}\\t'`,
      `for ((try = 0; try < 200; try++)); do while zpty -r -t shell text; do all+=$text; done; [[ $all == *${expected}* ]] && break; sleep 0.1; done`,
      'print -r -- $all; zpty -d shell',
    ].join('\n');
    return spawnSync('zsh', ['-f', '-c', source], { encoding: 'utf8', cwd: directory, timeout: 30_000 }).stdout;
  };
  expect(offers('warp-tool th', 'threads')).toContain('threads');
  expect(offers('warp-tool maps --sort ', 'rss')).toMatch(/addr +rss +size|size +rss +addr/);
  expect(offers('warp-tool validate --h', '--host')).toMatch(/--host/);
});

it('completion in fish offers commands, flags and values', (context) => {
  const reason = missing('fish');
  if (reason) context.skip(reason);
  const path = script('fish');
  const offers = (line: string): string[] =>
    execFileSync('fish', ['--no-config', '-c', `source '${path}'; complete -C '${line}'`], {
      encoding: 'utf8',
      cwd: directory,
      env: { ...process.env, HOME: directory },
    })
      .trim()
      .split('\n')
      .map((entry) => entry.split('\t')[0]!);
  expect(offers('warp-tool ').toSorted()).toEqual(Object.keys(COMMANDS).toSorted());
  expect(offers('warp-tool maps --sort ')).toEqual(expect.arrayContaining(['size', 'rss', 'addr']));
  expect(offers('warp-tool validate --ho')).toContain('--host');
});

describe('man', () => {
  it('writes a page for every command, which groff formats without a complaint', (context) => {
    const output = join(directory, 'man1');
    expect(warpTool('man', '--output', output)).toMatchObject({ status: 0, stderr: '' });
    const pages = readdirSync(output);
    expect(pages.toSorted()).toEqual(['warp-tool.1', ...Object.keys(COMMANDS).map((name) => `warp-tool-${name}.1`)].toSorted());
    const reason = missing('groff');
    if (reason) context.skip(reason);
    for (const page of pages) {
      const { stdout, stderr, status } = spawnSync('groff', ['-man', '-ww', '-Tutf8', '-P-cbou', join(output, page)], { encoding: 'utf8' });
      expect([status, stderr], page).toEqual([0, '']);
      expect(stdout).toContain('NAME');
      const command = COMMANDS[page.slice('warp-tool-'.length, -2)];
      for (const flag of Object.keys({ ...command?.baseFlags, ...command?.flags })) expect(stdout, page).toContain(`--${flag}`);
    }
  });

  it('prints the page of one command, and refuses a name that is none', () => {
    expect(warpTool('man', 'diff').stdout).toMatch(/^\.TH "WARP\\-TOOL\\-DIFF" 1/);
    expect(warpTool('man').stdout).toMatch(/^\.TH "WARP\\-TOOL" 1/);
    expect(warpTool('man', 'nothing')).toMatchObject({ status: 2, stderr: expect.stringContaining('nothing is not a warp-tool command') });
    expect(warpTool('completion', 'csh')).toMatchObject({ status: 2 });
  });
});
