/* Thread-local storage: of the program, of a shared object loaded with dlopen, thread-specific data, and errno. */
#include "check.h"
#include <dlfcn.h>

#define THREADS 6

static __thread long value = 100;
static __thread char block[5000];
static pthread_key_t key;
static long *(*module_address)(void);
static char *(*module_memory)(void);
static sem_t request[THREADS], reply;

struct addresses {
  long *value, *module;
  char *block, *memory;
};

static void fill_storage(long id) {
  value = id;
  memset(block, (int)id, sizeof block);
  *module_address() = id * 2;
  memset(module_memory(), (int)id * 3, 3000);
  PTHREAD(pthread_setspecific(key, (void *)(id * 5)));
}

static void check_storage(long id, const struct addresses *at) {
  CHECK(value == id && &value == at->value, "thread %ld: value %ld", id, value);
  CHECK(block == at->block, "thread %ld", id);
  for (unsigned i = 0; i < sizeof block; i++) CHECK(block[i] == (char)id);
  CHECK(module_address() == at->module && *at->module == id * 2, "thread %ld: module value %ld", id, *module_address());
  CHECK(module_memory() == at->memory);
  for (unsigned i = 0; i < 3000; i++) CHECK(at->memory[i] == (char)(id * 3));
  CHECK(pthread_getspecific(key) == (void *)(id * 5));
}

static void *thread(void *argument) {
  long id = (long)argument;
  fill_storage(id);
  struct addresses at = {&value, module_address(), block, module_memory()};
  sem_post(&reply);
  for (;;) {
    errno = 1000 + id;
    int before = errno;
    wait_semaphore(&request[id]);
    CHECK(before == 1000 + id);
    check_storage(id, &at);
    sem_post(&reply);
  }
  return NULL;
}

static struct addresses main_at;

static void set_up(void) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s", arguments[0]);
  char *slash = strrchr(path, '/');
  snprintf(slash ? slash + 1 : path, 32, "tls_module.so");
  void *module = dlopen(path, RTLD_NOW);
  if (!module) FAIL("dlopen: %s", dlerror());
  module_address = (long *(*)(void))dlsym(module, "module_address");
  module_memory = (char *(*)(void))dlsym(module, "module_memory");
  CHECK(module_address && module_memory);
  PTHREAD(pthread_key_create(&key, NULL));
  sem_init(&reply, 0, 0);
  for (long i = 0; i < THREADS; i++) {
    sem_init(&request[i], 0, 0);
    start_thread(thread, (void *)i);
    wait_semaphore(&reply);
  }
  fill_storage(77);
  main_at = (struct addresses){&value, module_address(), block, module_memory()};
}

static void verify(void) {
  for (int i = 0; i < THREADS; i++) {
    sem_post(&request[i]);
    wait_semaphore(&reply);
  }
  check_storage(77, &main_at);
}

static void *new_thread(void *unused) {
  (void)unused;
  CHECK(value == 100 && *module_address() == 4711);
  CHECK(is_zero(block, sizeof block) && is_zero(module_memory(), 3000));
  CHECK(!pthread_getspecific(key));
  value = 9;
  return &value;
}

static void after_restore(void) {
  verify();
  for (int i = 0; i < 3; i++) {
    void *result;
    PTHREAD(pthread_join(start_thread(new_thread, NULL), &result));
    CHECK(result != &value);
  }
}
