/** The rules' parser and matcher (native/src/image/policies.c) under sanitizers. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'warp-tool-policies-'));
const program = join(directory, 'policies_check');
afterAll(() => rmSync(directory, { recursive: true }));

let sanitizers = true;

beforeAll(() => {
  const sources = ['image/policies.c', 'base/pattern.c', 'base/base.c', 'base/xxh64.c', 'arch/x86_64/arch.c', 'arch/x86_64/entry.S'];
  const compile = (flags: string[]): string =>
    spawnSync(
      process.env['CC'] ?? 'cc',
      [
        '-std=gnu17',
        '-Wall',
        '-Wextra',
        '-g',
        '-O1',
        '-ffreestanding',
        ...flags,
        '-o',
        program,
        join(root, 'test/native/policies_check.c'),
      ].concat(sources.map((file) => join(root, 'native/src', file))),
      { encoding: 'utf8' },
    ).stderr;
  let problem = compile(['-fsanitize=address,undefined', '-fno-sanitize-recover=all']);
  if (/cannot find -l(?:a|ub)san|libasan|libubsan/.test(problem)) {
    sanitizers = false;
    problem = compile([]);
  }
  expect(problem).toBe('');
}, 120_000);

function ask(input: string): string[] {
  const result = spawnSync(program, [], { input, encoding: 'utf8', timeout: 60_000 });
  expect(result.stderr).toBe('');
  expect(result.status).toBe(0);
  return result.stdout.trimEnd().split('\n');
}

it.each([
  ['glob /var/log/*.log', ['/var/log/a.log'], ['/var/log/a/b.log', '/var/log/a.logs', 'x/var/log/a.log']],
  ['glob /var/**/*.log', ['/var/a/b.log', '/var/a/b/c.log'], ['/var/b.log', '/var/a/b.txt']],
  ['glob **', ['/', '/a/b'], []],
  ['glob /a?/[b-d][!x]', ['/a1/cz', '/ab/b-'], ['/a//cz', '/a1/ax', '/a1/bx', '/a1/b/']],
  ['glob **/{a,b{c,d}*}.txt', ['/x/a.txt', '/x/bc1.txt', '/y/z/bd.txt'], ['/x/b.txt', '/x/ab.txt']],
  ['glob /a\\*b\\{', ['/a*b{'], ['/axb{']],
  ['glob /a,b', ['/a,b'], ['/a']],
  ['regex anon_inode:\\[(eventfd|timerfd)\\]', ['anon_inode:[eventfd]', 'anon_inode:[timerfd]'], ['anon_inode:[eventpoll]', 'x']],
  ['regex .*\\.(log|txt)?', ['a.log', 'a.'], ['alog']],
  ['regex [^/]+/\\d+\\w*', ['a/1', 'b-c/12x_'], ['/1', 'a/x', 'a/1-']],
  ['regex ^(?:a|b|)+$', ['abba', 'a'], ['abc']],
])('%s', (pattern, yes, no) => {
  expect(ask([...yes, ...no].map((text) => `${pattern} ${text}`).join('\n'))).toEqual([...yes.map(() => 'yes'), ...no.map(() => 'no')]);
});

it.each([
  ['glob /[a', "'[' has no ']'"],
  ['glob /{a,b', "'{' has no '}'"],
  ['glob /[b-a]', "a range in '[…]' ends before it begins"],
  ['glob /a\\', "nothing follows the last '\\'"],
  ['regex (a', "'(' has no ')'"],
  ['regex a)', "')' has no '('"],
  ['regex *a', "nothing stands before '*', '+' or '?'"],
  ['regex a{2}', "'{' and '}' are not known here: repeat by hand, or write '\\{'"],
  ['regex \\q', "of letters and digits only d, w and s can stand behind '\\'"],
  [`regex ${'('.repeat(40)}`, 'groups stand in groups too deeply'],
  [`regex ${'a'.repeat(600)}`, 'it is too long'],
])('%s is refused', (pattern, problem) => {
  expect(ask(`${pattern} x`)).toEqual([problem]);
});

it('matches what would keep a matcher that backtracks busy for ever', () => {
  expect(ask(`regex (a*)*(a*)*(a|a)*b ${'a'.repeat(1000)}`)).toEqual(['no']);
});

function rules(text: string | Buffer, subjects: string[] = []): string[] {
  const file = join(directory, 'rules');
  writeFileSync(file, text);
  return ask(`rules ${file}\n${subjects.map((line) => `${line}\n`).join('')}\n`);
}

/** A struct sockaddr as hexadecimal digits. */
function ipv4(address: string, port: number): string {
  return Buffer.from([2, 0, port >> 8, port & 255, ...address.split('.').map(Number), 0, 0, 0, 0, 0, 0, 0, 0]).toString('hex');
}
function ipv6(words: string, port: number): string {
  return `0a00${port.toString(16).padStart(4, '0')}00000000${words}00000000`;
}
const unix = (name: string): string => `0100${Buffer.from(name).toString('hex')}`;

describe('rules', () => {
  it('are tried in order, each for its own type', () => {
    const text = [
      '---',
      'type: file',
      'path: "/a/*"',
      'action: close',
      '---',
      '# a comment',
      'type: FileDescriptor',
      "value: '7'",
      'action: IGNORE',
      'warn: false',
      '---',
      'type: pipe\r',
      'action: error\r',
      '---',
      'type: filedescriptor',
      'regex: anon_inode:.*',
      'action: ignore',
      '---',
      'type: file',
      'action: reopen',
    ].join('\n');
    const subjects = [
      'file 3 /a/b',
      'file 3 /a/b/c',
      'file 7 /x',
      'file 7 /a/b',
      'pipe 4 pipe:[5]',
      'other 5 anon_inode:[eventfd]',
      'other 6 /memfd:x',
    ];
    expect(rules(text, [...subjects, 'caller 7 /x', 'caller 8 /a/b']).map((line) => line.replace(/ \| .*/, ''))).toEqual([
      'good',
      'close line 2',
      'reopen line 19',
      'ignore quietly line 7',
      'close line 2',
      'error line 12',
      'ignore line 15',
      'none line 0',
      'ignore quietly line 7',
      'none line 0',
    ]);
  });

  it.each([
    ['family: ip', ['ip4', 'ip6', 'mapped']],
    ['family: inet4', ['ip4']],
    ['family: ipv6', ['ip6', 'mapped']],
    ['family: unix', ['path', 'abstract']],
    ['localPort: 80', ['ip4', 'ip6']],
    ['localPort: *\nlistening: true', ['ip4', 'path']],
    ['localAddress: 127.0.0.1', ['ip4', 'mapped']],
    ['localAddress: localhost\nlocalPort: 81', ['mapped']],
    ['localAddress: 2001:db8::1', ['ip6']],
    ['localAddress: [2001:db8:0:0::1]\nremotePort: 90', ['ip6']],
    ['remoteAddress: ::', ['mapped']],
    ['remoteAddress: 0.0.0.0', ['mapped']],
    ['remoteAddress: 10.0.0.1\nremotePort: 5432', ['ip4']],
    ['localPath: /run/*.sock', ['path']],
    ['localPath: "@job-*"', ['abstract']],
    ['remotePath: /run/**', ['abstract']],
    ['', ['ip4', 'ip6', 'mapped', 'path', 'abstract', 'packet']],
  ])('sockets: %j', (keys, expected) => {
    const subjects = {
      ip4: `2 1 ${ipv4('127.0.0.1', 80)} ${ipv4('10.0.0.1', 5432)}`,
      ip6: `10 0 ${ipv6('20010db8000000000000000000000001', 80)} ${ipv6('20010db8000000000000000000000002', 90)}`,
      mapped: `10 0 ${ipv6('00000000000000000000ffff7f000001', 81)} ${ipv6('0'.repeat(32), 1)}`,
      path: `1 1 ${unix('/run/a.sock')}`,
      abstract: `1 0 ${unix('\0job-1')} ${unix('/run/x/y')}`,
      packet: '17 0',
    };
    const [first, ...answers] = rules(
      `type: socket\n${keys}\naction: close`,
      Object.values(subjects).map((rest) => `socket 5 socket:[1] ${rest}`),
    );
    expect(first).toBe('good');
    expect(Object.keys(subjects).filter((_, index) => answers[index]!.startsWith('close'))).toEqual(expected);
  });

  it('are written for what is matched exactly', () => {
    const subjects = [
      'file 3 /a/b*c',
      `socket 5 socket:[1] 2 1 ${ipv4('127.0.0.1', 80)}`,
      `socket 5 socket:[1] 2 0 ${ipv4('127.0.0.1', 80)} ${ipv4('10.0.0.1', 5432)}`,
      `socket 6 socket:[1] 1 1 ${unix('\0x[1')}`,
      'pipe 4 pipe:[1]',
      `file 9 /${'long/'.repeat(80)}x`,
    ];
    const written = rules('type: pipe\naction: ignore', subjects)
      .slice(1)
      .map((line) => line.replace(/.* \| /, ''));
    expect(written).toEqual([
      'type: file; path: /a/b\\*c; action: ignore',
      'type: socket; localPort: 80; action: ignore',
      'type: socket; remotePort: 5432; action: ignore',
      'type: socket; localPath: @x\\[1; action: ignore',
      'type: filedescriptor; value: 4; action: ignore',
      'type: filedescriptor; value: 9; action: ignore',
    ]);
    written.forEach((rule, index) => expect(rules(rule.replaceAll('; ', '\n'), [subjects[index]!])[1]).toMatch(/^ignore line 1 /));
  });
});

it.each<[string | Buffer, string]>([
  ['type: fil\naction: close', 'rules:1: type fil is not known: write file, pipe, socket or filedescriptor'],
  ['type: file\naction: opne', 'rules:2: action opne is not known: write error, ignore, close or reopen'],
  ['\n\naction: close', 'rules:3: this rule has no type: write type: file, pipe, socket or filedescriptor'],
  ['type: pipe', 'rules:1: this rule has no action: write action: error, ignore, close'],
  ['type: file\n---\n', 'rules:1: this rule has no action: write action: error, ignore, close or reopen'],
  ['type: pipe\naction: reopen', 'rules:1: a pipe cannot be opened again: write action: error, ignore or close'],
  ['type: pipe\npath: /x\naction: close', 'rules:1: path does not belong to type pipe: leave it out, or write type: file'],
  ['type: file\npath: x.log\naction: close', 'rules:2: path: x.log: paths of open files begin with a slash: write /… or **/x.log'],
  ['type: file\npath: /[x\naction: close', "rules:2: path: /[x: '[' has no ']'; a '\\' before a character takes it as it is"],
  ['type: file\ntype: pipe', 'rules:2: type is given twice in one rule: write --- between rules'],
  ['type: file\naction:', 'rules:2: action has no value: write it behind the colon, or leave the line out'],
  ['type: file\nclose', "rules:2: 'close' is no rule: write key: value, --- between rules, and # before comments"],
  ['type: file\npth: /x', 'rules:2: there is no key pth: write one of type, action, warn, path'],
  ['type: file\nwarn: no', 'rules:2: warn: no: write true or false'],
  ['type: socket\nfamily: ipx', 'rules:2: family ipx is not known: write ipv4, ipv6, ip or unix'],
  ['type: socket\nlocalPort: 65536', 'rules:2: localPort: 65536: write a port, 1 to 65535, or *'],
  ['type: socket\nlocalAddress: 1.2.3', 'rules:2: localAddress: 1.2.3: write an IP address as numbers, or *'],
  ['type: socket\nremoteAddress: 1::2::3', 'rules:2: remoteAddress: 1::2::3: write an IP address as numbers, or *'],
  ['type: socket\nlocalPath: /x\nlocalPort: 1\naction: close', 'rules:1: no socket has both paths and IP addresses: write a rule for each'],
  [
    'type: socket\nfamily: unix\nlocalPort: 1\naction: close',
    'rules:1: sockets of family unix have no addresses and ports: write localPath or remotePath',
  ],
  ['type: filedescriptor\naction: close', 'rules:1: a filedescriptor is named by its number or by a text: write one of value and regex'],
  ['type: filedescriptor\nvalue: -1\naction: close', 'rules:2: value: -1: write the number of a descriptor'],
  ['type: filedescriptor\nregex: (\naction: close', "rules:2: regex: (: '(' has no ')'"],
  [
    Buffer.from('type: pipe\nacti\0on: close'),
    'rules:2: there is a zero byte: it is no text file; name a file of rules (docs/policies.md)',
  ],
  [`# ${'x'.repeat(2000)}`, 'rules:1: the line is longer than 1200 bytes: name a file of rules (docs/policies.md)'],
  ['type: pipe\naction: close\n---\n'.repeat(513), 'rules:1537: there are more than 512 rules: join some of them by patterns'],
])('%j is told with its line', (text, problem) => {
  expect(rules(text)).toEqual([problem]);
});

it('takes an empty file, and refuses one that is too large', () => {
  expect(rules('')).toEqual(['good']);
  expect(rules('# only a comment\n')).toEqual(['good']);
  expect(rules('#\n'.repeat(40_000))[0]).toMatch(/it has more than 65536 bytes/);
});

it('stays within its memory whatever is in the file', ({ skip }) => {
  if (!sanitizers) skip('this compiler has no sanitizers installed');
  const result = spawnSync(program, ['20000'], { encoding: 'utf8', timeout: 200_000 });
  expect(result.stderr).toBe('');
  expect(result.stdout).toMatch(/^20000 files, \d+ of them good\n$/);
});
