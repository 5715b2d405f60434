/*
 * Becomes a grandchild of itself by two forks, the ancestors end: a forked process can be captured like any other. Prints its pid.
 */
#include "check.h"

static void *other_thread(void *unused) {
  (void)unused;
  for (;;) pause();
  return NULL;
}

static void set_up(void) {
  start_thread(other_thread, NULL);
  for (int i = 0; i < 2; i++) { /* the second generation of forks matters too */
    pid_t child = SYS(fork());
    if (child) _exit(0);
  }
  start_thread(other_thread, NULL);
  was_restored(); /* take note of the new pid */
  print_line("pid %d", getpid());
}

static void verify(void) {}

static void after_restore(void) { IN_CHILD(_exit(0)); }
