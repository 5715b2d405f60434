import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { Flags } from '@oclif/core';
import { parseKey } from '../elf/encryption.js';
import { Failure, systemErrorReason } from '../failure.js';

/** Of every command that can read an encrypted image. */
export const keyFlags = {
  'encryption-key-file': Flags.string({
    description: 'Key of an encrypted image: 32 bytes, 64 hexadecimal digits or base64.',
    helpValue: 'FILE',
    exclusive: ['encryption-key-env'],
    helpGroup: 'ENCRYPTION',
  }),
  'encryption-key-env': Flags.string({
    description: 'Environment variable with the key, in hexadecimal digits or base64.',
    helpValue: 'NAME',
    helpGroup: 'ENCRYPTION',
  }),
};

export interface KeyFlags {
  'encryption-key-file'?: string;
  'encryption-key-env'?: string;
}

/** The key that the flags name, 32 bytes; undefined where they name none. `warn` is told what is odd about it. */
export async function keyOf(flags: KeyFlags, warn: (message: string) => void): Promise<Buffer | undefined> {
  const { 'encryption-key-file': file, 'encryption-key-env': variable } = flags;
  if (variable !== undefined) {
    const value = process.env[variable];
    if (value === undefined) throw new Failure(`--encryption-key-env ${variable}: there is no such environment variable`);
    return parseKey(Buffer.from(value), `the environment variable ${variable}`, false);
  }
  if (file === undefined) return undefined;
  let content: Buffer;
  try {
    await warnOfReaders(file, warn);
    // A device may have no end.
    content = await buffer(createReadStream(file, { end: LARGEST }));
    if (content.length > LARGEST) throw new Failure(`${file} holds no key: it has more than ${LARGEST} bytes`);
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(`cannot read the key in ${file}: ${systemErrorReason(error)}`, { cause: error });
  }
  return parseKey(content, file, true);
}

/** The flags, as warp-restore and warp-checkpoint take them: these read the key themselves, and no other process has it. */
export async function nativeKeyArguments(flags: KeyFlags, warn: (message: string) => void): Promise<string[]> {
  const { 'encryption-key-file': file, 'encryption-key-env': variable } = flags;
  if (variable !== undefined) return ['--encryption-key-env', variable];
  if (file === undefined) return [];
  await warnOfReaders(file, warn).catch(() => {}); // what cannot be read they say
  return ['--encryption-key-file', file];
}

async function warnOfReaders(file: string, warn: (message: string) => void): Promise<void> {
  const status = await stat(file);
  if (status.isFile() && (status.mode & 0o044) !== 0) warn(`${file} can be read by others, who can then decrypt; \`chmod 600\` it`);
}

/** Bytes of a file that may hold a key: more than any form of it needs. */
const LARGEST = 4096;
