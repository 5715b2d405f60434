import { chownSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeDirectory, user } from './host.js';

/** A file with a key, or what is none, that only the test's user can read. */
export function writeKey(content: Buffer | string): string {
  const path = join(makeDirectory(), 'key');
  writeFileSync(path, content, { mode: 0o600 });
  if (user.uid !== undefined) chownSync(path, user.uid, user.gid!);
  return path;
}
