/*
 * execve(2) with everything that it reads in memory that is not there yet: the new program gets its arguments, and the signal mask and
 * dispositions that the old one believed to have. It prints `executed`.
 */
#define PAGES 64
#define CHECK_OWN_MAIN
#include "absent.h"

static char *path, **list, **variables;

static void set_up(void) {
  take_pages();
  path = strcpy(fresh(1), arguments[0]);
  list = fresh(1);
  variables = fresh(1);
  list[0] = strcpy(fresh(1), "loading_exec");
  list[1] = strcpy(fresh(1), "executed");
  list[2] = memset(fresh(2), 'x', 5000);
  list[2][5000] = 0;
  list[3] = NULL;
  variables[0] = strcpy(fresh(1), "VARIABLE=value");
  variables[1] = NULL;
}

static void verify(void) {}

static void after_restore(void) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGSEGV);
  sigaddset(&blocked, SIGSYS);
  if (self_test && SYS(fork()) != 0) {
    int status;
    SYS(wait(&status));
    CHECK(status == 0);
    return;
  }
  SYS(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = SIG_IGN}, NULL));
  SYS(sigprocmask(SIG_SETMASK, &blocked, NULL));
  SYS(execve(path, list, variables));
}

static void check_inherited(char **given) {
  const char *value = getenv("VARIABLE");
  CHECK(strlen(given[2]) == 5000 && given[2][4999] == 'x' && value && !strcmp(value, "value"));
  sigset_t mask;
  SYS(sigprocmask(SIG_SETMASK, NULL, &mask));
  for (int number = 1; number < 32; number++) {
    struct sigaction action;
    SYS(sigaction(number, NULL, &action));
    CHECK(sigismember(&mask, number) == (number == SIGSEGV || number == SIGSYS), "signal %d", number);
    CHECK((action.sa_handler == SIG_IGN) == (number == SIGUSR1), "signal %d", number);
  }
  print_line("executed");
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "executed")) {
    check_inherited(argv);
    return 0;
  }
  begin(argc, argv);
  set_up();
  print_line("ready");
  tick_forever(NULL);
}
