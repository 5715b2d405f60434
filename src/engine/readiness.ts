/** When a program that was just started is warm: for checkpoints that are taken without anybody watching. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { Failure } from '../failure.js';

/** Resolves to true as soon as the program is found ready, to false when it is not yet. */
export type ReadinessCheck = () => Promise<boolean>;

/** Clock ticks a second of /proc/PID/stat: USER_HZ, 100 on every Linux. */
const TICKS = 100;

/**
 * The check that `--checkpoint-when` names.
 * - `port:N`: something accepts TCP connections on port N of this host; `port:N/path`: and answers GET /path over HTTP with a status below 400;
 * - `idle:S`: the process has used less than a hundredth of one processor for S seconds on end;
 * - anything else is a command for sh(1) that ends with 0.
 *
 * @throws Failure for a port or a number of seconds that makes no sense
 */
export function readinessCheck(condition: string, pid: number): ReadinessCheck {
  const port = /^port:([^/]*)(\/.*)?$/.exec(condition);
  if (port) {
    const number = Number(port[1]);
    if (!/^\d+$/.test(port[1]!) || number < 1 || number > 65535)
      throw new Failure(`--checkpoint-when ${condition}: ${port[1] || 'nothing'} is not a port; give a number from 1 to 65535`);
    return port[2] === undefined ? () => acceptsConnections(number) : () => answersHttp(number, port[2]!);
  }
  const idle = /^idle:(.*)$/.exec(condition);
  if (idle) {
    const seconds = Number(idle[1]);
    if (!(seconds > 0)) throw new Failure(`--checkpoint-when ${condition}: ${idle[1] || 'nothing'} is not a number of seconds above 0`);
    return idleFor(pid, seconds);
  }
  if (condition.trim() === '') throw new Failure('--checkpoint-when: give a command, port:N[/path] or idle:SECONDS');
  return async () => spawnSync('/bin/sh', ['-c', condition], { stdio: 'ignore' }).status === 0;
}

function acceptsConnections(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', timeout: 2000 });
    const answer = (accepted: boolean) => (): void => {
      socket.destroy();
      resolve(accepted);
    };
    socket.on('connect', answer(true)).on('error', answer(false)).on('timeout', answer(false));
  });
}

function answersHttp(port: number, path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const sent = request({ port, host: '127.0.0.1', path, timeout: 10_000, agent: false, headers: { connection: 'close' } }, (response) => {
      response.resume().on('end', () => resolve((response.statusCode ?? 500) < 400));
      response.on('error', () => resolve(false));
    });
    sent
      .on('error', () => resolve(false))
      .on('timeout', () => sent.destroy())
      .end();
  });
}

function idleFor(pid: number, seconds: number): ReadinessCheck {
  let since: { used: number; at: number } | undefined;
  return async () => {
    // After the last ')': the name in the second field may hold anything. Fields 14 and 15 of proc_pid_stat(5).
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const used = Number(fields[11]) + Number(fields[12]);
    const now = performance.now();
    if (!since || used - since.used > Math.max(1, ((now - since.at) / 1000) * TICKS * 0.01)) {
      since = { used, at: now };
      return false;
    }
    return now - since.at >= seconds * 1000;
  };
}
