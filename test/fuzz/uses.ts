/** What is done with every damaged image: each command that looks into images, run in this process, and what its answer must be like. */
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { Config } from '@oclif/core';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { messageOf } from '../../src/cli.js';
import { COMMANDS } from '../../src/commands/index.js';
import { Failure } from '../../src/failure.js';
import { schemas } from '../../src/schemas/index.js';
import { SECRET } from './seeds.js';

/** Files of one round: the damaged image, an undamaged one, and where results go. */
export interface Files {
  image: string;
  intact: string;
  output: string;
  /** An address of the undamaged image, hexadecimal. */
  address: string;
}

type Uses = (files: Files) => string[][];

/** Calls of each command. With --json where there is nothing else to see; as text too where rendering has work of its own. */
export const uses: Record<string, Uses> = {
  show: ({ image }) => [[image], [image, '--json'], [image, '--json', '--encryption-key-env', 'FUZZ_KEY']],
  threads: ({ image }) => [
    [image, '--registers'],
    [image, '--registers', '--stack', '--json'],
    [image, '--json', '--encryption-key-env', 'FUZZ_KEY'],
  ],
  maps: ({ image }) => [
    [image, '--sort', 'size'],
    [image, '--json'],
  ],
  fds: ({ image }) => [[image], [image, '--json']],
  env: ({ image }) => [[image], [image, '--json']],
  signals: ({ image }) => [[image], [image, '--json']],
  notes: ({ image }) => [[image], [image, '--json']],
  auxv: ({ image }) => [[image], [image, '--json']],
  mem: ({ image, address, output }) => [
    [image, `${address}:300`],
    [image, address, '--json'],
    [image, `${address}:64`, '--as', 'ptr'],
    [image, address, '--as', 'cstr'],
    [image, '--text', SECRET, '--limit', '4', '--json'],
    [image, '--search', '00 00 00', '--limit', '3'],
    [image, '--regex', 'se[a-z]+', '-i', '--in', 'heap', '--in', 'stack', '--limit', '5'],
    [image, '--strings', '--limit', '20', '--json'],
    [image, '--strings', '--encoding', 'utf-16', '--prot', 'rw'],
    [image, '--extract', `${address}:8192`, '-o', output],
    [image, `${address}:300`, '--json', '--encryption-key-env', 'FUZZ_KEY'],
  ],
  diff: ({ image, intact }) => [
    [image, intact, '--memory'],
    [intact, image, '--memory', '--details', '--json'],
  ],
  decode: ({ image, output }) => [[image, '-o', output]],
  // Of what `decode` wrote.
  encode: ({ output }) => [[output, '-o', `${output}.img`]],
  validate: ({ image }) => [[image], [image, '--host', '--json'], [image, '--json', '--encryption-key-env', 'FUZZ_KEY']],
  redact: ({ image, output }) => [
    [image, '-o', `${output}.img`],
    [image, '-o', `${output}.img`, '--keep', 'registers', '--json'],
  ],
  compress: ({ image, output }) => [[image, '-o', `${output}.img`, '--level', '2', '--json']],
  decompress: ({ image, output }) => [[image, '-o', `${output}.img`, '--json']],
  encrypt: ({ image, output }) => [[image, '-o', `${output}.img`, '--json', '--encryption-key-env', 'FUZZ_KEY']],
  decrypt: ({ image, output }) => [[image, '-o', `${output}.img`, '--json', '--encryption-key-env', 'FUZZ_KEY']],
  report: ({ image, output }) => [
    [image, '-o', `${output}.html`],
    [image, '--json'],
  ],
  'gdb-script': ({ image }) => [[image]],
};

const LARGEST_OUTPUT = 64 << 20;
const ajv = new Ajv2020({ strict: false });
const validators = new Map<string, ValidateFunction>();

/** As oclif's configuration, where a command is run directly. */
const configuration = {
  bin: 'warp-tool',
  scopedEnvVarKey: (name: string) => name,
  runHook: async () => ({ successes: [], failures: [] }),
} as unknown as Config;

/** What is wrong with an answer. */
export class Wrong extends Error {}

interface Answer {
  output: string;
  failure: Failure | null;
}

async function answerOf(name: string, argv: string[]): Promise<Answer> {
  const answer: Answer = { output: '', failure: null };
  const streams = [process.stdout, process.stderr];
  const originals = streams.map((stream) => stream.write);
  for (const [index, stream] of streams.entries()) {
    stream.write = ((text: string) => {
      if (index === 0) answer.output += text;
      if (answer.output.length > LARGEST_OUTPUT) throw new Wrong(`prints more than ${LARGEST_OUTPUT} characters`);
      return true;
    }) as typeof stream.write;
  }
  try {
    await COMMANDS[name]!.start(argv, configuration);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    answer.failure = error;
  } finally {
    for (const [index, stream] of streams.entries()) stream.write = originals[index]!;
    process.exitCode = 0;
  }
  return answer;
}

function check(name: string, argv: readonly string[], { output, failure }: Answer): void {
  if (failure) {
    const message = messageOf(failure, [name]);
    if (/[\p{Cc}]/u.test(message)) throw new Wrong(`its error is not one line of text: ${JSON.stringify(message)}`);
    if (message.length > 4096) throw new Wrong(`its error has ${message.length} characters`);
    return;
  }
  if (name === 'gdb-script') return;
  if (!argv.includes('--json')) {
    const control = /[^\n\P{Cc}]/u.exec(output);
    if (control)
      throw new Wrong(
        `prints the control character ${JSON.stringify(control[0])}: ${JSON.stringify(output.slice(Math.max(0, control.index - 80), control.index + 20))}`,
      );
    return;
  }
  let validate = validators.get(name);
  if (!validate) validators.set(name, (validate = ajv.compile(schemas[name]!.json)));
  if (!validate(JSON.parse(output))) throw new Wrong(`its document does not fit its schema: ${ajv.errorsText(validate.errors)}`);
}

function openFiles(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Runs all commands on one damaged image. Throws what is wrong, with the call that showed it as `call`. */
export async function exercise(files: Files, begin: (call: string) => void): Promise<void> {
  let decoded = false;
  for (const [name, calls] of Object.entries(uses)) {
    if (name === 'encode' && !decoded) continue;
    for (const argv of calls(files)) {
      begin([name, ...argv].join(' '));
      const before = openFiles();
      const answer = await answerOf(name, argv);
      // Pipes to a debugger that is not there are closed a little later.
      for (let turns = 0; openFiles() > before && turns < 1000; turns++) await setImmediate();
      if (openFiles() > before) throw new Wrong('leaves a file open');
      check(name, argv, answer);
      if (answer.failure) continue;
      if (name === 'decode') decoded = true;
      if (name === 'encode' && !sameContent(`${files.output}.img`, files.image))
        throw new Wrong('decoded and encoded, the image is another');
      if (name === 'redact' && !argv.includes('--keep') && tellsSecret(`${files.output}.img`)) throw new Wrong('the secret is still there');
    }
  }
  for (const path of ['', '.img', '.html'].map((ending) => `${files.output}${ending}`)) rmSync(path, { force: true });
  const strays = readdirSync(join(files.output, '..')).filter((name) => name.endsWith('.tmp'));
  if (strays.length > 0) throw new Wrong(`${strays[0]} was left behind`);
}

function sameContent(one: string, other: string): boolean {
  return statSync(one).size === statSync(other).size && readFileSync(one).equals(readFileSync(other));
}

/** Whether a redacted image has the secret, but for its header and segment table: text that was put over these has become numbers. */
function tellsSecret(path: string): boolean {
  const image = readFileSync(path);
  const table = Number(image.readBigUInt64LE(32));
  const size = 56 * image.readUInt16LE(56);
  image.fill(0, 0, 64);
  if (table < image.length) image.fill(0, table, Math.min(table + size, image.length));
  return image.includes(SECRET);
}
