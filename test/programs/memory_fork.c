/* Children of the restored process have their own copy of private memory, and the parent keeps its own. */
#include "check.h"

#define SIZE (256 * PAGE)

static unsigned char *memory;
static long in_data = 5;

static void set_up(void) {
  memory = map_memory(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(memory, SIZE, 1);
}

static void verify(void) { CHECK(is_filled(memory, SIZE, 1) && in_data == 5); }

static void *child_thread(void *unused) {
  (void)unused;
  return memory;
}

static void after_restore(void) {
  IN_CHILD({
    if (!is_filled(memory, SIZE, 1)) _exit(2);
    memset(memory, 1, SIZE);
    in_data = 6;
    pthread_t thread;
    void *result;
    if (pthread_create(&thread, NULL, child_thread, NULL) || pthread_join(thread, &result) || result != memory) _exit(3);
    if (!malloc(100000)) _exit(4);
  });
  verify();
  int ready[2];
  SYS(pipe(ready));
  pid_t child = SYS(fork());
  if (child == 0) {
    char byte;
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) _exit(5); /* after the parent has written */
    _exit(is_filled(memory, SIZE, 1) ? 0 : 6);
  }
  memset(memory, 2, SIZE);
  CHECK(write(ready[1], "x", 1) == 1);
  int status;
  SYS(waitpid(child, &status, 0));
  CHECK(status == 0, "wait status 0x%x", status);
  close(ready[0]);
  close(ready[1]);
  fill(memory, SIZE, 1);
  /* and a new program */
  child = SYS(vfork());
  if (child == 0) {
    execl("/bin/true", "true", (char *)NULL);
    _exit(127);
  }
  SYS(waitpid(child, &status, 0));
  CHECK(status == 0, "exec in a child: wait status 0x%x", status);
}
