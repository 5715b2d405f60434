/* A shared object is loaded and unloaded all the time: the capture finds the process with the loader's lock held. */
#include "check.h"
#include <dlfcn.h>

static char path[PATH_MAX];
static atomic_ulong rounds;

static void *thread(void *unused) {
  (void)unused;
  for (;;) {
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module) FAIL("dlopen: %s", dlerror());
    long *(*address)(void) = (long *(*)(void))dlsym(module, "module_address");
    CHECK(address && *address() == 4711);
    dlclose(module);
    rounds++;
    if (rounds % 16 == 0) sleep_ms(1);
  }
  return NULL;
}

static void set_up(void) {
  snprintf(path, sizeof path, "%s", arguments[0]);
  char *slash = strrchr(path, '/');
  snprintf(slash ? slash + 1 : path, 32, "tls_module.so");
  start_thread(thread, NULL);
}

static void verify(void) {}

static void after_restore(void) {
  unsigned long before = rounds;
  WAIT_UNTIL(rounds > before + 10);
}
