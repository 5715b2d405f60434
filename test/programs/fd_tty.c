/* Terminals: stdin, stdout and a copy are terminals before and after; /dev/tty opens; window size and modes can be asked for. */
#include "check.h"
#include <sys/ioctl.h>
#include <termios.h>

static int copy, own;

static void set_up(void) {
  CHECK(isatty(0) && isatty(1), "run this program on a terminal");
  copy = SYS(dup(0));
  own = SYS(open(ttyname(0), O_RDWR | O_NOCTTY | O_CLOEXEC));
}

static void verify(void) {
  struct termios modes;
  struct winsize size;
  CHECK(isatty(0) && isatty(1) && isatty(2), "a standard stream is no terminal any more");
  CHECK(isatty(copy), "the copy of stdin is no terminal any more");
  CHECK(isatty(own), "the terminal opened by name is no terminal any more");
  SYS(tcgetattr(copy, &modes));
  SYS(ioctl(own, TIOCGWINSZ, &size));
}

static void after_restore(void) { CHECK(write(own, "through the terminal\n", 21) == 21); }
