/** `explore` as a user sees it: the real program on a real terminal, on images of a real process. */
import { constants } from 'node:os';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { compile, removeDirectory, root, scratchDirectory, warpTool } from './support/cores.js';
import { Conversation } from './support/engine.js';
import { Screen } from './support/screen.js';

// A busy machine may take its time; only a fault takes that long.
vi.setConfig({ testTimeout: 240_000 });

const directory = scratchDirectory();
const screens: Screen[] = [];
let before: string;
let after: string;

const PROGRAM = String.raw`
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *sleeper(void *unused) { (void)unused; pthread_setname_np(pthread_self(), "sleeper"); for (;;) pause(); }
static void on_usr1(int number) { (void)number; }

int main(int argc, char **argv) {
  (void)argc;
  /* A pointer at 0x510000000040 to a text, and a gibibyte of nothing. */
  char *memory = mmap((void *)0x510000000000, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  mmap((void *)0x520000000000, 1ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  *(char **)(memory + 0x40) = memory + 0x10020;
  strcpy(memory + 0x10020, "a treasure at the end of a pointer");
  signal(SIGUSR1, on_usr1);
  dup2(open(argv[0], O_RDONLY), 42);
  pthread_t thread;
  pthread_create(&thread, NULL, sleeper, NULL);
  usleep(20000);
  puts("ready");
  fflush(stdout);
  char line[100];
  while (fgets(line, sizeof line, stdin)) {
    memory[0x10025] = 'X';
    puts("done");
    fflush(stdout);
  }
}
`;

beforeAll(async () => {
  const program = Conversation.start(directory, ['run', '--', compile(directory, 'program', PROGRAM)], { WARP_TEST: 'a value to see' });
  await program.line();
  before = program.checkpoint(directory, 'before', '--leave-running');
  await program.ask('change');
  after = program.checkpoint(directory, 'after');
  await program.ended;
});
afterEach(async () => {
  await Promise.all(screens.splice(0).map((screen) => screen.kill()));
});
afterAll(() => removeDirectory(directory));

function explore(argv: string[], options: ConstructorParameters<typeof Screen>[2] = {}): Screen {
  const screen = new Screen(directory, [process.execPath, join(root, 'bin/run.js'), 'explore', ...argv], options);
  screens.push(screen);
  return screen;
}

const ECHO_AND_LINES = 0o12; // ECHO | ICANON of termios(3)

/** The terminal is as it was: the normal screen, a cursor, lines and echo. */
function expectClean(screen: Screen): void {
  expect(screen.alternate).toBe(false);
  expect(screen.cursorShown).toBe(true);
  expect(screen.output.lastIndexOf('\x1b[?7h')).toBeGreaterThan(screen.output.lastIndexOf('\x1b[?7l'));
  expect(screen.modes! & ECHO_AND_LINES).toBe(ECHO_AND_LINES);
}

describe('a session', () => {
  it('goes through all views of an image in 80 columns and 24 lines', async () => {
    const screen = explore([before]);
    await screen.until(/^process +program +pid \d+/m);
    expect(screen.alternate).toBe(true);
    expect(screen.cursorShown).toBe(false);
    expect(screen.inverse()).toEqual(['1 overview']);
    await screen.type('2', /^ *\d+ +sleeper +pause +pause\+0x/m);
    expect(screen.inverse()[0]).toBe('2 threads');
    await screen.type('<enter>', /^ +rsp +0x7ff\w+ +\[stack\]/m);
    await screen.type('<right>', /^thread \d+ sleeper {2}registers/m);
    await screen.type('v', /^ +mxcsr {2}0x1f80/m);
    await screen.type('s', /main +\S*\.c:|pause|neither is installed/);
    await screen.type('3', /^510000000000 {2}rw-p +256 KiB +8\.00 KiB/m);
    await screen.type('s', /by size/);
    expect(screen.inverse()[1]).toMatch(/^520000000000 {2}rw-p +1\.00 GiB/);
    await screen.type('4', /^42 {2}file .*program/m);
    await screen.type('<end><enter>', /^description +\d+$/m);
    await screen.type('<escape>', /^\d+ descriptors/m);
    await screen.type('5/warp_test<enter>', /^WARP_TEST +a value to see$/m);
    await screen.type('6', /^10 {2}SIGUSR1 +on_usr1 \(program\)/m);
    await screen.type('7', /^address +0 {2}1/m);
    await screen.type('8', /O opens another image/);
    await screen.type('?', /^everywhere$/m);
    await screen.type('q', () => screen.child.exitCode !== null);
    expect(await screen.ended).toBe(0);
    expectClean(screen);
  });

  it('goes to an address, follows a pointer, searches, and comes back', async () => {
    const screen = explore([before]);
    await screen.until(/^process/m);
    await screen.type('g', /^go to address.*:/m);
    await screen.type('510000000040<enter>', /^0x510000000040 {2}rw-p/m);
    await screen.until(/-> anonymous rw-p 0x510000000000\+0x10020 {2}"a treasure/);
    expect(screen.inverse()).toContain('20 00 01 00 00 51 00 00 ....Q..'.replace(' ....', ' ....').trim());
    await screen.type('<enter>', /^510000010020 61 20 74 72 65 61 73 75 {2}72 65.*a treasure at th$/m);
    await screen.type('b', /^0x510000000040 /m);
    await screen.type('/end of a pointer<enter>', /^0x510000010030 .*match 1 of 1\b(?! so far)/m);
    await screen.type('g520000000000<enter>', /^0x520000000000 /m);
    await screen.type('<pagedown>', /^0x520000000110 /m);
    await screen.type('}{<up>', /^0x52003ffffff0 |^0x51000003fff0 /m);
    await screen.type('g510000010020<enter>r', /^0x510000000040 .*match 1 of 1\b/m);
    await screen.type('g1234<enter>', /^0x1234 is not mapped; the next area starts at 0x510000000000/m);
    screen.press('q');
    expect(await screen.ended).toBe(0);
    expectClean(screen);
  });

  it('compares two images down to the byte', async () => {
    const screen = explore([before, after]);
    await screen.until(/^process/m);
    await screen.type('8', /^memory {2}m compares it/m);
    await screen.type('m', /^memory {2}\d+ pages of .* differ/m);
    await screen.type('/510000000000<enter>', () => screen.inverse().some((line) => line.includes('~ 0x510000000000')));
    await screen.type('<enter><down><enter>', /^0x510000010000 .*image A/m);
    await screen.type(']', /^0x510000010020 .*image A/m);
    await screen.until(/other image 0x7573586572742061/);
    await screen.type('o', /a treXsure at th/);
    expect(screen.text).toMatch(/image B/);
    screen.press('q');
    expect(await screen.ended).toBe(0);
  });

  it('fits every size of a terminal that changes', async () => {
    const screen = explore([before]);
    await screen.until(/^process/m);
    await screen.type('7', /^address/m);
    for (const [columns, rows] of [[132, 50], [60, 12], [200, 24], [80, 24]] as const) {
      screen.resize(columns, rows);
      // The keys are on the last line, the tabs on the first.
      await screen.until(() => screen.lines()[rows - 1]!.endsWith('? help  q quit') && screen.lines()[0]!.startsWith(' 1 overview'));
      const shown = (): number => screen.lines().filter((line) => /^[0-9a-f]{12} |^──/.test(line)).length;
      await screen.until(() => shown() === rows - 6);
      expect(shown()).toBe(rows - 6);
    } // prettier-ignore
    screen.press('q');
    await screen.ended;
    expectClean(screen);
  });

  it('writes nothing while nothing changes, and a line or two when a cursor moves', async () => {
    const screen = explore([before]);
    await screen.until(/^process/m);
    await screen.type('3', /^510000000000/m);
    await screen.type('<down>', () => screen.inverse()[1]!.startsWith('520000000000'));
    const from = screen.output.length;
    // A key without meaning, then the cursor.
    await screen.type('%<down>', () => !screen.inverse()[1]!.startsWith('520000000000'));
    const written = screen.output.slice(from);
    // oxlint-disable-next-line no-control-regex
    const lines = [...written.matchAll(/\x1b\[(\d+);1H/g)].map(([, line]) => Number(line));
    // The title with the position, the two rows, and what is said of the row.
    expect(lines).toEqual([2, 5, 6, 22, 23]);
    expect(written).not.toContain('\x1b[2J');
  });

  it('has no colours where NO_COLOR says so, and still a cursor', async () => {
    // oxlint-disable-next-line no-control-regex
    const colours = /\x1b\[(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|38|48)/;
    const screen = explore([before], { env: { NO_COLOR: '1' } });
    await screen.until(/^process/m);
    await screen.type('3', /^510000000000/m);
    expect(screen.output).not.toMatch(colours);
    expect(screen.inverse()).toHaveLength(2);
    screen.press('q');
    await screen.ended;
    const coloured = explore([before]);
    await coloured.until(/^process/m);
    expect(coloured.output).toMatch(colours);
  });
});

describe('the terminal is left as it was', () => {
  it.each(['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT'] as const)('by %s, which shows in the exit status', async (name) => {
    const screen = explore([before]);
    await screen.until(/^process/m);
    screen.signal(constants.signals[name]);
    expect(await screen.ended).toBe(128 + constants.signals[name]);
    expectClean(screen);
  });

  it('by Ctrl-C, also while it searches', async () => {
    const screen = explore([before]);
    await screen.until(/^process/m);
    screen.press('7/nowhere to be found<enter><ctrl-c>');
    expect(await screen.ended).toBe(0);
    expectClean(screen);
  });

  it('when something breaks: the error comes on the normal screen', async () => {
    const screen = explore([before], { env: { NODE_OPTIONS: `--import ${join(root, 'test/support/break-signals.mjs')}` } });
    await screen.until(/^process/m);
    screen.signal(constants.signals.SIGUSR2);
    expect(await screen.ended).toBe(2);
    expectClean(screen);
    expect(screen.text).toMatch(/^warp-tool: internal error: broken on purpose; please report it/m);
  });

  it('when the terminal goes away', async () => {
    const screen = explore([before]);
    await screen.until(/^process/m);
    screen.hangUp();
    expect(await screen.ended).toBe(128 + constants.signals.SIGHUP);
  });

  it('while it is suspended, and drawn again when it goes on', async () => {
    chmodSync(directory, 0o777);
    const screen = new Screen(directory, ['sh', '-i'], { env: { PS1: 'prompt> ', ENV: '' } });
    screens.push(screen);
    await screen.until(/^prompt>/m);
    await screen.type(`${process.execPath} ${join(root, 'bin/run.js')} explore ${before}<enter>`, /^process +program/m);
    await screen.type('<ctrl-z>', () => !screen.alternate && screen.text.trimEnd().endsWith('prompt>'));
    expect(screen.cursorShown).toBe(true);
    await screen.type('echo typed at "$((6 * 7))"<enter>', /^typed at 42$/m);
    screen.resize(100, 30);
    await screen.type('fg<enter>', () => screen.alternate && /^process +program/m.test(screen.text));
    await screen.until(() => screen.lines()[29]!.endsWith('q quit'));
    await screen.type('3', /^510000000000/m);
    await screen.type('q', () => !screen.alternate);
    await screen.type('exit<enter>', () => screen.child.exitCode !== null);
    expectClean(screen);
  });

  it('goes on where nothing can bring it back from the background', async () => {
    const screen = explore([before]);
    await screen.until(/^process/m);
    // Without a shell that controls jobs a stop would be for ever: the kernel ignores it.
    await screen.type('<ctrl-z>3', /^510000000000/m);
    screen.press('q');
    expect(await screen.ended).toBe(0);
    expectClean(screen);
  });
});

describe('errors are one line', () => {
  it('without a terminal', () => {
    const { status, stdout, stderr } = warpTool('explore', before);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(/^warp-tool: explore needs a terminal .*\n$/);
  });

  it('with --json', () => {
    const { status, stderr } = warpTool('explore', before, '--json');
    expect(status).toBe(2);
    expect(stderr).toMatch(/^warp-tool: explore has no flag --json; .*\n$/);
  });

  it.each([
    ['a missing image', 'missing', /cannot open .*missing: no such file or directory/],
    ['something else than an image', 'program', /this ELF file is of type \w+, not a core file/],
  ])('for %s, without touching the screen', async (_, name, message) => {
    const screen = explore([join(directory, name)], { columns: 400 });
    expect(await screen.ended).toBe(2);
    expect(screen.text.trimEnd().split('\n')).toHaveLength(1);
    expect(screen.text).toMatch(message);
    expect(screen.output).not.toContain('\x1b[?1049h');
  });
});
