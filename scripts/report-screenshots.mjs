#!/usr/bin/env node
/**
 * Pictures of reports as people see them: captures a JVM, a Node.js server, a C server (Redis) and a C program with threads, as far as they are
 * installed, makes the report of each, and takes it in light, dark, on a telephone and on paper, into screenshots/. Needs the build and Chromium.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { chromiumPath, hasChromium, startBrowser } from '../test/support/browser.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const target = join(root, 'screenshots');
const work = mkdtempSync(join(tmpdir(), 'warp-screenshots-'));
const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(work, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** A program with threads that hold memory of several kinds. */
const THREADS = String.raw`
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static pthread_barrier_t ready;

static void *work(void *argument) {
  long number = (long)argument;
  for (long i = 0; i < 200; i++) {
    unsigned char *block = malloc(20000);
    for (long k = 0; k < 20000; k++) block[k] = (unsigned char)((k * number * i) >> 3);
  }
  pthread_barrier_wait(&ready);
  pause();
  return NULL;
}

int main(void) {
  pthread_barrier_init(&ready, NULL, 13);
  for (long i = 0; i < 12; i++) {
    pthread_t thread;
    pthread_create(&thread, NULL, work, (void *)i);
  }
  char *memory = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (long i = 0; i < 1024; i++) memset(memory + (8 << 20) + i * 4096, 'A' + i % 3, 4096);
  char *shared = mmap(NULL, 1ul << 30, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memset(shared, 1, 1 << 20);
  pthread_barrier_wait(&ready);
  write(1, "ready\n", 6);
  pause();
}
`;

function run(command, ...args) {
  const result = spawnSync(command, args, { cwd: work, encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.error?.message ?? result.stderr.trim()}`);
  return result.stdout;
}

const tool = (...args) => run(process.execPath, join(root, 'bin/run.js'), ...args);
const installed = (command) => spawnSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' }).status === 0;

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Starts a program that prints a line when it is there, uses it, and captures it. */
async function capture(name, command, use = () => {}) {
  const child = spawn(process.execPath, [join(root, 'bin/run.js'), 'run', '--', ...command], {
    cwd: work,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.add(child);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  await Promise.race([
    new Promise((resolve) => child.stdout.once('data', resolve)),
    ended.then((status) => Promise.reject(new Error(`${name} ended with ${status}`))),
  ]);
  await use();
  const image = join(work, name);
  tool('checkpoint', String(child.pid), '--to', image);
  await ended;
  return image;
}

/** Asks a server until it answers, and then often enough to fill its caches. */
async function ask(port) {
  for (let asked = 0, deadline = Date.now() + 60_000; asked < 60;) {
    try {
      await (await fetch(`http://127.0.0.1:${port}/?q=blue%20bicycle%20${asked}`)).text();
      asked++;
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** Images of real programs, by name; those that are not installed are left out with a line. */
const programs = {
  node: async () => {
    const port = await freePort();
    return capture('node', [process.execPath, join(root, 'examples/quickstart/server.mjs'), String(port)], () => ask(port));
  },
  jvm: async () => {
    if (!installed('javac')) return 'openjdk-17-jdk-headless is not installed';
    run('javac', '-d', work, join(root, 'examples/quickstart/Search.java'));
    const port = await freePort();
    return capture('jvm', ['java', '-Xmx512m', '-cp', work, 'Search', String(port)], () => ask(port));
  },
  redis: async () => {
    if (!installed('redis-cli')) return 'redis-server is not installed';
    const port = await freePort();
    return capture('redis', ['redis-server', '--port', String(port), '--save', ''], () => {
      for (let tries = 0; ; tries++) {
        try {
          return run('redis-cli', '-p', String(port), 'debug', 'populate', '100000', 'key', '100');
        } catch (error) {
          if (tries > 50) throw error;
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
        }
      }
    });
  },
  threads: async () => {
    if (!installed('cc')) return 'no C compiler is installed';
    writeFileSync(join(work, 'threads.c'), THREADS);
    run('cc', '-O1', '-pthread', '-o', join(work, 'workers'), join(work, 'threads.c'));
    return capture('threads', [join(work, 'workers')]);
  },
};

const views = {
  light: { viewport: { width: 1200, height: 900 }, colorScheme: 'light' },
  dark: { viewport: { width: 1200, height: 900 }, colorScheme: 'dark' },
  phone: { viewport: { width: 375, height: 812 }, colorScheme: 'light', deviceScaleFactor: 2 },
  'phone-dark': { viewport: { width: 375, height: 812 }, colorScheme: 'dark', deviceScaleFactor: 2 },
};

async function main() {
  if (!hasChromium()) throw new Error(`${chromiumPath} is not there; on Debian: apt-get install chromium`);
  mkdirSync(target, { recursive: true });
  const browser = await startBrowser();
  try {
    for (const [name, make] of Object.entries(programs)) {
      const image = await make();
      if (!image.startsWith(work)) {
        console.log(`${name}: left out, ${image}`);
        continue;
      }
      const file = join(target, `${name}.html`);
      tool('report', image, '-o', file);
      for (const [view, options] of Object.entries(views)) {
        const page = await browser.newPage(options);
        await page.goto(pathToFileURL(file).href);
        await page.screenshot({ path: join(target, `${name}-${view}.png`), fullPage: true });
        if (view === 'light')
          await page.pdf({
            path: join(target, `${name}-print.pdf`),
            format: 'A4',
            margin: { top: '14mm', bottom: '14mm', left: '14mm', right: '14mm' },
          });
        await page.close();
      }
      console.log(`screenshots/${name}: ${Object.keys(views).join(', ')}, print`);
    }
  } finally {
    await browser.close();
  }
}

try {
  await main();
} catch (error) {
  console.error(`screenshots: ${error.message}`);
  process.exitCode = 2;
}
process.exit();
