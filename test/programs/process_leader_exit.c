/* The main thread has ended with pthread_exit; the others go on. */
#define CHECK_OWN_MAIN
#include "check.h"

static char leader_stack_address[64];
static volatile bool leader_is_gone;

static void *wait_for_leader(void *unused) {
  (void)unused;
  /* the leader is a zombie as soon as its state says so */
  for (;;) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    read_file(path, text, sizeof text);
    char *state = strrchr(text, ')');
    if (state && state[2] == 'Z') break;
    sleep_ms(1);
  }
  leader_is_gone = true;
  print_line("ready");
  return tick_forever(NULL);
}

static void set_up(void) {}

static void verify(void) { CHECK(leader_is_gone); }

static void *end(void *value) { return value; }

static void after_restore(void) {
  void *result;
  PTHREAD(pthread_join(start_thread(end, leader_stack_address), &result));
  CHECK(result == leader_stack_address);
}

int main(int argc, char **argv) {
  begin(argc, argv);
  set_up();
  start_thread(wait_for_leader, NULL);
  pthread_exit(NULL);
}
