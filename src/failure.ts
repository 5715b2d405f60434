/** An operation that failed in a way the user can understand: the message is one line that names the thing, the reason and the mend. */
export class Failure extends Error {
  override name = 'Failure';
  /** What the process exits with: 2 for usage errors, unreadable input and failed operations; 1 for an honest negative answer. */
  readonly exitCode: 1 | 2;

  constructor(message: string, options: { exitCode?: 1 | 2; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.exitCode = options.exitCode ?? 2;
  }
}

/** An image (or another ELF file) that does not hold what it must. Names the file and, where there is one, the file offset in bytes. */
export class ImageError extends Failure {
  override name = 'ImageError';

  constructor(
    readonly file: string,
    readonly offset: bigint | undefined,
    readonly problem: string,
    readonly mend: string,
  ) {
    super(`${file}: ${offset === undefined ? '' : `at offset 0x${offset.toString(16)}: `}${problem}; ${mend}`);
  }
}

const SYSTEM_ERRORS: Record<string, string> = {
  EACCES: 'permission denied; run as the user that owns it',
  EISDIR: 'is a directory',
  ELOOP: 'too many symbolic links',
  EMFILE: 'too many open files; raise the limit with `ulimit -n`',
  ENOENT: 'no such file or directory; check the path',
  ENOSPC: 'no space left on the device; free some or choose another place',
  ENOTDIR: 'a part of the path is not a directory',
  EPERM: 'operation not permitted',
  EROFS: 'the file system is read-only; choose another place',
};

/** The reason in a Node.js system error, in words and with the mend where one is known. */
export function systemErrorReason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return (code && SYSTEM_ERRORS[code]) ?? code ?? message;
}
