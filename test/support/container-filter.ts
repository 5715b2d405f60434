/**
 * The default seccomp profile of container engines (Docker, Podman), as a filter that the kernel takes: for tests that run what is
 * allowed in a container that was given nothing.
 */
import { existsSync, readFileSync } from 'node:fs';

/** From Debian's package golang-github-containers-common. */
export const profilePath = '/usr/share/containers/seccomp.json';

interface Condition {
  index: number;
  value: number;
  valueTwo?: number;
  op: string;
}

interface Rule {
  names: string[];
  action: string;
  args?: Condition[] | null;
  errnoRet?: number;
  includes?: { arches?: string[]; caps?: string[]; minKernel?: string };
  excludes?: { arches?: string[]; caps?: string[] };
}

interface Profile {
  defaultErrnoRet?: number;
  syscalls: Rule[];
}

// linux/bpf_common.h, linux/seccomp.h, linux/audit.h
const LOAD = 0x20;
const JUMP_EQUAL = 0x15;
const AND = 0x54;
const RETURN = 0x06;
const ALLOW = 0x7fff0000;
const ERRNO = 0x00050000;
const KILL = 0x80000000;
const AUDIT_ARCH_X86_64 = 0xc000003e;
const NUMBER = 0;
const ARCHITECTURE = 4;
const ARGUMENTS = 16;

type Instruction = [code: number, whenTrue: number, whenFalse: number, value: number];

/** Numbers of system calls by name, of the kernel's header. */
function callNumbers(): Map<string, number> {
  const header = ['/usr/include/x86_64-linux-gnu/asm/unistd_64.h', '/usr/include/asm/unistd_64.h'].find((path) => existsSync(path));
  if (!header) throw new Error('no asm/unistd_64.h; on Debian: apt-get install libc6-dev');
  const lines = readFileSync(header, 'utf8').matchAll(/^#define __NR_(\w+) (\d+)$/gm);
  return new Map([...lines].map((line) => [line[1]!, Number(line[2])]));
}

/** Whether a rule counts for a process of this machine with no capability at all. */
function applies(rule: Rule): boolean {
  const { includes, excludes } = rule;
  if (includes?.caps?.length) return false;
  if (includes?.arches?.length && !includes.arches.includes('amd64')) return false;
  return !excludes?.arches?.includes('amd64');
}

/** Ends at `otherwise` instructions behind when a condition does not hold. */
function condition(test: Condition, otherwise: (after: number) => number): Instruction[] {
  const words = (value: number): [number, number] => [value >>> 0, Math.floor(value / 2 ** 32)];
  const mask = test.op === 'SCMP_CMP_MASKED_EQ' ? words(test.value) : undefined;
  const value = mask ? words(test.valueTwo ?? 0) : words(test.value);
  const instructions: Instruction[] = [];
  if (test.op === 'SCMP_CMP_NE') {
    // Another high half is enough; then the low half must be another.
    instructions.push([LOAD, 0, 0, ARGUMENTS + 8 * test.index + 4], [JUMP_EQUAL, 0, 2, value[1]]);
    instructions.push([LOAD, 0, 0, ARGUMENTS + 8 * test.index], [JUMP_EQUAL, otherwise(4), 0, value[0]]);
    return instructions;
  }
  for (const half of [0, 1] as const) {
    instructions.push([LOAD, 0, 0, ARGUMENTS + 8 * test.index + 4 * half]);
    if (mask) instructions.push([AND, 0, 0, mask[half]]);
    instructions.push([JUMP_EQUAL, 0, otherwise(instructions.length + 1), value[half]]);
  }
  return instructions;
}

/** The profile compiled: an array of struct sock_filter. Unknown operators are an error rather than a hole. */
export function containerFilter(): Buffer {
  const profile = JSON.parse(readFileSync(profilePath, 'utf8')) as Profile;
  const numbers = callNumbers();
  const refuse = ERRNO | (profile.defaultErrnoRet ?? 1);
  const program: Instruction[] = [
    [LOAD, 0, 0, ARCHITECTURE],
    [JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64],
    [RETURN, 0, 0, KILL],
    [LOAD, 0, 0, NUMBER],
  ];
  for (const rule of profile.syscalls.filter(applies)) {
    const action = rule.action === 'SCMP_ACT_ALLOW' ? ALLOW : ERRNO | (rule.errnoRet ?? 1);
    for (const name of rule.names) {
      const number = numbers.get(name);
      if (number === undefined) continue;
      const tests = rule.args ?? [];
      if (tests.length === 0) {
        program.push([JUMP_EQUAL, 0, 1, number], [RETURN, 0, 0, action]);
        continue;
      }
      const strange = tests.find((test) => !['SCMP_CMP_EQ', 'SCMP_CMP_NE', 'SCMP_CMP_MASKED_EQ'].includes(test.op));
      if (strange) throw new Error(`${profilePath}: operator ${strange.op} of ${name} is not known here`);
      const sizes = tests.map((test) => condition(test, () => 0).length);
      const total = sizes.reduce((sum, size) => sum + size, 0);
      let at = 0;
      const body = tests.flatMap((test) => {
        const start = at;
        const made = condition(test, (after) => total - start - after + 1);
        at += made.length;
        return made;
      });
      program.push([JUMP_EQUAL, 0, total + 2, number], ...body, [RETURN, 0, 0, action], [LOAD, 0, 0, NUMBER]);
    }
  }
  program.push([RETURN, 0, 0, refuse]);
  return encode(program);
}

/** A filter that lets everything pass but these system calls, or those of them that have this value as an argument. */
export function refuseCalls(calls: readonly { name: string; argument?: number; value?: number; errno: number }[]): Buffer {
  const numbers = callNumbers();
  const program: Instruction[] = calls.flatMap(({ name, argument, value, errno }): Instruction[] => {
    const test: Instruction[] =
      argument === undefined
        ? []
        : [
            [LOAD, 0, 0, ARGUMENTS + 8 * argument],
            [JUMP_EQUAL, 0, 1, value!],
          ];
    return [[LOAD, 0, 0, NUMBER], [JUMP_EQUAL, 0, test.length + 1, numbers.get(name)!], ...test, [RETURN, 0, 0, ERRNO | errno]];
  });
  return encode([...program, [RETURN, 0, 0, ALLOW]]);
}

function encode(program: Instruction[]): Buffer {
  const buffer = Buffer.alloc(program.length * 8);
  program.forEach(([code, whenTrue, whenFalse, value], index) => {
    buffer.writeUInt16LE(code, index * 8);
    buffer.writeUInt8(whenTrue, index * 8 + 2);
    buffer.writeUInt8(whenFalse, index * 8 + 3);
    buffer.writeUInt32LE(value >>> 0, index * 8 + 4);
  });
  return buffer;
}
