/*
 * The engine in a Java virtual machine, which loads it as an agent (-agentpath:libwarp.so=warp-crac.jar). The agent's classes (java/) run what
 * applications have registered before a checkpoint and after it, in a thread of theirs that waits here; docs/java.md tells what for. Functions of the
 * virtual machine are called by their places in its tables, which the JNI and JVM TI specifications fix.
 */
#include "java.h"

#include <linux/mman.h>
#include <linux/un.h>

#include "../base/socket_constants.h"

#define PUBLIC __attribute__((visibility("default")))

typedef void *reference; /* jobject */
typedef const void *const **environment; /* JNIEnv *, jvmtiEnv *, JavaVM * */
#define CALL(table, place, result, ...) ((result (*)(environment, ##__VA_ARGS__))(*(table))[place])

/* Places in the tables. */
enum { JNI_DEFINE_CLASS = 5, JNI_FIND_CLASS = 6, JNI_EXCEPTION_CLEAR = 17, JNI_GET_STATIC_METHOD = 113, JNI_CALL_STATIC_VOID = 143, JNI_ARRAY_LENGTH = 171, JNI_NEW_OBJECT_ARRAY = 172,
       JNI_SET_OBJECT_ELEMENT = 174, JNI_NEW_BYTE_ARRAY = 176, JNI_GET_BYTES = 200, JNI_SET_BYTES = 208, JNI_REGISTER_NATIVES = 215, JNI_EXCEPTION_CHECK = 228 };
enum { VM_GET_ENVIRONMENT = 6 };
enum { TI_SET_EVENT_MODE = 1, TI_DEALLOCATE = 46, TI_ADD_MODULE_OPENS = 95, TI_FORCE_COLLECTION = 107, TI_OBJECTS_WITH_TAGS = 113, TI_ITERATE_HEAP = 115, TI_SET_CALLBACKS = 121, TI_ADD_CAPABILITIES = 141 };
#define TI_VERSION_9 0x30090000
#define TI_ENABLE 1
#define TI_DISABLE 0
enum { TI_FIRST_EVENT = 50, TI_EVENT_VM_INIT = 50, TI_EVENT_COLLECTION_FINISH = 82 };

/* Where the agent's thread and the helper stand with each other. */
enum agent_state {
  AGENT_ABSENT = 0,
  AGENT_IDLE = 1,      /* its thread waits for a request */
  AGENT_BEFORE = 2,    /* the application gets ready */
  AGENT_READY = 3,     /* or has refused; its thread waits for what becomes of the checkpoint */
  AGENT_AFTER = 4,     /* the application goes on */
  AGENT_ABANDONED = 5, /* nobody waits for it to get ready any more */
};

static struct {
  uint32_t state; /* a futex; enum agent_state */
  int32_t outcome;
  size_t problems_size;
  char problems[16 * KIB];
  int64_t restored_ms; /* since the epoch; 0: never */
  environment tools;   /* jvmtiEnv */
  char jar[4096];
  /* The file of performance counters, which is mapped there. */
  uint64_t counters;
  uint64_t counters_size;
  char counters_file[300];
} java;

static uint32_t agent_state(void) { return __atomic_load_n(&java.state, __ATOMIC_ACQUIRE); }

static bool agent_change(uint32_t from, uint32_t to) {
  if (!__atomic_compare_exchange_n(&java.state, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return false;
  futex_wake(&java.state, 0x7fffffff);
  return true;
}

/* ---- the helper's side ---- */

/* Waits until the agent has left `state`; false when the client has gone or the time is over. */
static bool agent_leaves(uint32_t state, const struct request *request, uint64_t deadline_ns) {
  while (agent_state() == state) {
    if (!client_waits(request) || clock_ns(CLOCK_MONOTONIC_) > deadline_ns) return false;
    futex_wait(&java.state, state, &(struct timespec64){0, 20000000});
  }
  return true;
}

int java_before_checkpoint(const struct request *request, struct failure *failure) {
  const uint64_t deadline = clock_ns(CLOCK_MONOTONIC_) + request->hooks_timeout_ms * 1000000;
  while (!agent_change(AGENT_IDLE, AGENT_BEFORE)) {
    uint32_t state = agent_state();
    if (state == AGENT_ABSENT) return 0;
    if (state != AGENT_IDLE && !agent_leaves(state, request, deadline))
      return fail(failure, "the application is still busy with an earlier checkpoint (its resources have not returned from %s): see its stacks with jstack, or try again", state == AGENT_AFTER ? "afterRestore" : "beforeCheckpoint");
  }
  if (!agent_leaves(AGENT_BEFORE, request, deadline) && agent_change(AGENT_BEFORE, AGENT_ABANDONED))
    return fail(failure, "the application's resources have not returned from beforeCheckpoint within %lu ms: see its stacks with jstack, or give it longer with --timeout", request->hooks_timeout_ms);
  if (java.problems_size == 0) return 0;
  size_t count = 0;
  for (char *line = java.problems, *end; (end = (char *)find_character(line, '\n')) != NULL; line = end + 1, count++) {
    *end = 0;
    log_error("%s", line);
  }
  java_go_on(JAVA_FAILED);
  return fail(failure, "the application refuses the checkpoint and goes on: %lu of its resources threw %s in beforeCheckpoint: close what is named above, or mend it there", count, count == 1 ? "an exception" : "exceptions");
}

void java_go_on(enum java_outcome outcome) {
  if (agent_state() != AGENT_READY) return;
  java.outcome = outcome;
  agent_change(AGENT_READY, AGENT_AFTER);
}

void java_forked(void) { java.state = AGENT_ABSENT; }

/* ---- performance counters ---- */

static void find_counters(void) {
  struct arena scratch = {NULL};
  size_t size;
  long error;
  struct map_line line;
  const char *at = read_whole_file(&scratch, "/proc/self/maps", &size, &error);
  while (at != NULL && (at = parse_map_line(at, &line)) != NULL) {
    char name[sizeof java.counters_file];
    format(name, sizeof name, "%.*s", (int)line.name_length, line.name);
    if (line.permissions[3] != 's' || find_string(name, "/hsperfdata_") == NULL) continue;
    java.counters = line.start;
    java.counters_size = line.end - line.start;
    copy_bytes(java.counters_file, name, sizeof name);
  }
  arena_release(&scratch);
}

/* jps and jcmd look for a file named after the process: a restored one gets its own, with what its counters were. */
static void publish_counters(void) {
  if (java.counters == 0) return;
  char *slash = (char *)find_last_character(java.counters_file, '/');
  *slash = 0;
  long made = sys(mkdirat, AT_FDCWD_, java.counters_file, 0755);
  *slash = '/';
  format(slash + 1, sizeof java.counters_file - (size_t)(slash + 1 - java.counters_file), "%ld", sys(getpid));
  long fd = made < 0 && made != -EEXIST ? made : open_file(java.counters_file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  long error = fd < 0 ? fd : write_fully((int)fd, (const void *)java.counters, java.counters_size);
  if (error >= 0) error = sys(mmap, java.counters, java.counters_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
  if (error < 0) log_info("jps will not list the process: %s: %s", java.counters_file, error_text(error));
  if (error < 0 && fd >= 0) sys(unlinkat, AT_FDCWD_, java.counters_file, 0);
  if (error < 0) *slash = '/', slash[1] = 0;
  if (fd >= 0) sys(close, fd);
}

/* The virtual machine listens for tools anew when the file of its old socket is gone. */
static void forget_attach_socket(long old_pid) {
  struct sockaddr_un address = {.sun_family = AF_UNIX_};
  struct file_status status;
  format(address.sun_path, sizeof address.sun_path, "/tmp/.java_pid%ld", old_pid);
  if (sys(newfstatat, AT_FDCWD_, address.sun_path, &status, 0x100 /* AT_SYMLINK_NOFOLLOW */) < 0 || (status.mode & S_IFMT) != S_IFSOCK) return;
  long fd = sys(socket, AF_UNIX_, SOCK_STREAM_ | SOCK_CLOEXEC_, 0);
  /* A process that got the old id may answer there. */
  if (fd >= 0 && sys(connect, fd, &address, sizeof address) == -ECONNREFUSED) sys(unlinkat, AT_FDCWD_, address.sun_path, 0);
  if (fd >= 0) sys(close, fd);
}

void java_restored(long old_pid) {
  forget_attach_socket(old_pid);
  if (java.tools == NULL) return;
  publish_counters();
  java_resumed();
}

void java_resumed(void) {
  java.restored_ms = (int64_t)(clock_ns(CLOCK_REALTIME_) / 1000000);
  java_go_on(JAVA_RESTORED);
}

/* ---- native methods of warp.crac.Engine ---- */

static reference new_bytes(environment jni, const void *bytes, size_t size) {
  reference array = CALL(jni, JNI_NEW_BYTE_ARRAY, reference, int32_t)(jni, (int32_t)size);
  if (array != NULL) CALL(jni, JNI_SET_BYTES, void, reference, int32_t, int32_t, const void *)(jni, array, 0, (int32_t)size, bytes);
  return array;
}

/* The array's bytes, as far as they fit, with a NUL behind them; returns their number. */
static size_t get_bytes(environment jni, reference array, char *to, size_t room) {
  size_t size = min_u64((uint64_t)CALL(jni, JNI_ARRAY_LENGTH, int32_t, reference)(jni, array), room - 1);
  CALL(jni, JNI_GET_BYTES, void, reference, int32_t, int32_t, void *)(jni, array, 0, (int32_t)size, to);
  to[size] = 0;
  return size;
}

static void await_request(environment jni, reference class) {
  (void)jni, (void)class;
  __atomic_store_n(&java.state, AGENT_IDLE, __ATOMIC_RELEASE);
  futex_wake(&java.state, 0x7fffffff);
  while (agent_state() == AGENT_IDLE) futex_wait(&java.state, AGENT_IDLE, NULL);
}

static int32_t proceed(environment jni, reference class, reference problems) {
  (void)class;
  java.problems_size = get_bytes(jni, problems, java.problems, sizeof java.problems);
  /* A last line that did not fit is one all the same. */
  if (java.problems_size == sizeof java.problems - 1) java.problems[java.problems_size - 1] = '\n';
  java.outcome = JAVA_FAILED;
  if (!agent_change(AGENT_BEFORE, AGENT_READY)) return JAVA_FAILED;
  while (agent_state() == AGENT_READY) futex_wait(&java.state, AGENT_READY, NULL);
  return java.outcome;
}

static int32_t take_checkpoint(environment jni, reference class, reference directory, reference engine_name, uint8_t keep_running, int32_t compression) {
  char path[4096], name[32];
  enum engine_kind engine = ENGINE_WARP;
  (void)class;
  get_bytes(jni, directory, path, sizeof path);
  get_bytes(jni, engine_name, name, sizeof name);
  if (name[0] != 0 && !engine_parse(name, &engine)) return engine_fail("warp.engine=%s: give warp, simengine or pauseengine", name);
  return engine_ask(path, engine, keep_running != 0, false, compression, NULL, NULL);
}

static void add_policies(environment jni, reference class, reference file) {
  char path[4096];
  (void)class;
  get_bytes(jni, file, path, sizeof path);
  policies_remember(path);
}

static reference last_error(environment jni, reference class) {
  (void)class;
  return new_bytes(jni, warp_error(), string_length(warp_error()));
}

static reference new_environment(environment jni, reference class) {
  (void)class;
  return new_bytes(jni, warp_control.environment, warp_control.environment_size);
}

static reference new_arguments(environment jni, reference class) {
  (void)class;
  return new_bytes(jni, warp_control.arguments, warp_control.arguments_size);
}

static reference performance_data(environment jni, reference class) {
  (void)class;
  size_t size = string_length(java.counters_file);
  return new_bytes(jni, java.counters_file, size == 0 || ends_with(java.counters_file, "/") ? 0 : size + 1);
}

static int64_t restore_time(environment jni, reference class) {
  (void)jni, (void)class;
  return java.restored_ms == 0 ? -1 : java.restored_ms;
}

static uint8_t open_package(environment jni, reference class, reference module, reference package, reference to) {
  char name[300];
  (void)class;
  get_bytes(jni, package, name, sizeof name);
  return CALL(java.tools, TI_ADD_MODULE_OPENS, int32_t, reference, const char *, reference)(java.tools, module, name, to) == 0;
}

#define TAG 0x77617270
static int32_t tag_object(int64_t class_tag, int64_t size, int64_t *tag, int32_t length, void *data) {
  (void)class_tag, (void)size, (void)length, (void)data;
  *tag = TAG;
  return 0x100; /* JVMTI_VISIT_OBJECTS */
}

static reference instances(environment jni, reference class, reference type) {
  const uint8_t can_tag_objects[16] = {1};
  void *const callbacks[16] = {(void *)tag_object};
  const int64_t tag = TAG;
  int32_t count = 0;
  reference *objects = NULL;
  (void)class;
  CALL(java.tools, TI_ADD_CAPABILITIES, int32_t, const void *)(java.tools, can_tag_objects);
  int32_t error = CALL(java.tools, TI_ITERATE_HEAP, int32_t, int32_t, reference, const void *, const void *)(java.tools, 0, type, callbacks, NULL);
  if (error == 0) error = CALL(java.tools, TI_OBJECTS_WITH_TAGS, int32_t, int32_t, const int64_t *, int32_t *, reference **, int64_t **)(java.tools, 1, &tag, &count, &objects, NULL);
  if (error != 0) log_warn("the objects whose random numbers are to be renewed cannot be found (JVM TI error %d)", error);
  reference array = CALL(jni, JNI_NEW_OBJECT_ARRAY, reference, int32_t, reference, reference)(jni, count, CALL(jni, JNI_FIND_CLASS, reference, const char *)(jni, "java/lang/Object"), NULL);
  for (int32_t i = 0; array != NULL && i < count; i++) CALL(jni, JNI_SET_OBJECT_ELEMENT, void, reference, int32_t, reference)(jni, array, i, objects[i]);
  if (objects != NULL) CALL(java.tools, TI_DEALLOCATE, int32_t, void *)(java.tools, objects);
  return array;
}

/* In the virtual machine's own thread, while those that use objects stand still at the end of a pause. */
static void collection_finished(environment tools) {
  (void)tools;
  java_heap_release_unused();
}

static void collect_garbage(environment jni, reference class, uint8_t release) {
  const uint8_t can_generate_collection_events[16] = {[3] = 1 << 7};
  (void)jni, (void)class;
  if (!collects_garbage) return;
  const bool told = release != 0 && CALL(java.tools, TI_ADD_CAPABILITIES, int32_t, const void *)(java.tools, can_generate_collection_events) == 0 &&
                    CALL(java.tools, TI_SET_EVENT_MODE, int32_t, int32_t, int32_t, reference)(java.tools, TI_ENABLE, TI_EVENT_COLLECTION_FINISH, NULL) == 0;
  for (int i = 0; i < (told ? java_heap_collections() : 1); i++) CALL(java.tools, TI_FORCE_COLLECTION, int32_t)(java.tools);
  if (told) CALL(java.tools, TI_SET_EVENT_MODE, int32_t, int32_t, int32_t, reference)(java.tools, TI_DISABLE, TI_EVENT_COLLECTION_FINISH, NULL);
}

static int64_t random_number(environment jni, reference class) {
  int64_t number = 0;
  (void)jni, (void)class;
  sys(getrandom, &number, sizeof number, 0);
  return number;
}

static const struct {
  const char *name;
  const char *signature;
  void *function;
} methods[] = {
    {"awaitRequest", "()V", (void *)await_request},
    {"proceed", "([B)I", (void *)proceed},
    {"checkpoint", "([B[BZI)I", (void *)take_checkpoint},
    {"policies", "([B)V", (void *)add_policies},
    {"error", "()[B", (void *)last_error},
    {"environment", "()[B", (void *)new_environment},
    {"arguments", "()[B", (void *)new_arguments},
    {"performanceData", "()[B", (void *)performance_data},
    {"restoreTime", "()J", (void *)restore_time},
    {"open", "(Ljava/lang/Module;[BLjava/lang/Module;)Z", (void *)open_package},
    {"instances", "(Ljava/lang/Class;)[Ljava/lang/Object;", (void *)instances},
    {"random", "()J", (void *)random_number},
    {"collectGarbage", "(Z)V", (void *)collect_garbage},
};

/* ---- the classes ---- */

static uint32_t read_16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }
static uint32_t read_32(const uint8_t *at) { return read_16(at) | read_16(at + 2) << 16; }

#define ZIP_END_SIZE 22ul
#define ZIP_ENTRY_SIZE 46ul
#define ZIP_LOCAL_SIZE 30ul

/* Defines the archive's classes, which are stored plainly and in an order that each can follow its supertypes in; returns the number. */
static int define_classes(environment jni, const uint8_t *archive, size_t size) {
  int count = 0;
  if (size < ZIP_END_SIZE || read_32(archive + size - ZIP_END_SIZE) != 0x06054b50) return -1;
  uint64_t at = read_32(archive + size - ZIP_END_SIZE + 16);
  for (uint32_t left = read_16(archive + size - ZIP_END_SIZE + 10); left > 0; left--) {
    if (at + ZIP_ENTRY_SIZE > size || read_32(archive + at) != 0x02014b50) return -1;
    const uint64_t name_size = read_16(archive + at + 28), content_size = read_32(archive + at + 24), local = read_32(archive + at + 42);
    char name[200];
    if (at + ZIP_ENTRY_SIZE + name_size > size || local + ZIP_LOCAL_SIZE > size) return -1;
    format(name, sizeof name, "%.*s", (int)name_size, (const char *)archive + at + ZIP_ENTRY_SIZE);
    const uint64_t content = local + ZIP_LOCAL_SIZE + read_16(archive + local + 26) + read_16(archive + local + 28);
    const bool stored = read_16(archive + at + 10) == 0 && content + content_size <= size;
    at += ZIP_ENTRY_SIZE + name_size + read_16(archive + at + 30) + read_16(archive + at + 32);
    if (!ends_with(name, ".class")) continue;
    if (!stored || CALL(jni, JNI_DEFINE_CLASS, reference, const char *, reference, const void *, int32_t)(jni, NULL, NULL, archive + content, (int32_t)content_size) == NULL) return -1;
    count++;
  }
  return count;
}

static bool start_agent(environment jni) {
  struct arena scratch = {NULL};
  size_t size = 0;
  long error = 0;
  const uint8_t *archive = (const uint8_t *)read_whole_file(&scratch, java.jar, &size, &error);
  bool good = archive != NULL && define_classes(jni, archive, size) > 0;
  reference engine = good ? CALL(jni, JNI_FIND_CLASS, reference, const char *)(jni, "warp/crac/Engine") : NULL;
  good = engine != NULL && CALL(jni, JNI_REGISTER_NATIVES, int32_t, reference, const void *, int32_t)(jni, engine, methods, sizeof methods / sizeof methods[0]) == 0;
  reference checkpoints = good ? CALL(jni, JNI_FIND_CLASS, reference, const char *)(jni, "warp/crac/Checkpoints") : NULL;
  void *start = checkpoints == NULL ? NULL : CALL(jni, JNI_GET_STATIC_METHOD, void *, reference, const char *, const char *)(jni, checkpoints, "start", "()V");
  if (start != NULL) CALL(jni, JNI_CALL_STATIC_VOID, void, reference, void *, const void *)(jni, checkpoints, start, NULL);
  good = start != NULL && CALL(jni, JNI_EXCEPTION_CHECK, uint8_t)(jni) == 0;
  CALL(jni, JNI_EXCEPTION_CLEAR, void)(jni);
  arena_release(&scratch);
  return good;
}

static void vm_started(environment tools, environment jni, reference thread) {
  (void)tools, (void)thread;
  find_counters();
  java_heap_begin();
  warp_control.takes_arguments = start_agent(jni);
  if (warp_control.takes_arguments) return;
  char line[4300];
  size_t n = format(line, sizeof line, "warp-tool: the Java agent cannot be started from %s: no resource will be told of checkpoints; build it anew, or run with --no-java-agent\n", java.jar);
  write_fully(2, line, n);
}

PUBLIC int32_t Agent_OnLoad(environment vm, const char *options, void *reserved);
PUBLIC int32_t Agent_OnLoad(environment vm, const char *options, void *reserved) {
  void *const callbacks[] = {[TI_EVENT_VM_INIT - TI_FIRST_EVENT] = (void *)vm_started, [TI_EVENT_COLLECTION_FINISH - TI_FIRST_EVENT] = (void *)collection_finished};
  (void)reserved;
  /* Named twice: on the command line, and in what the environment adds to it. */
  if (java.tools != NULL || options == NULL) return 0;
  if (CALL(vm, VM_GET_ENVIRONMENT, int32_t, environment *, int32_t)(vm, &java.tools, TI_VERSION_9) != 0) return 0;
  format(java.jar, sizeof java.jar, "%s", options);
  CALL(java.tools, TI_SET_CALLBACKS, int32_t, const void *, int32_t)(java.tools, callbacks, sizeof callbacks);
  CALL(java.tools, TI_SET_EVENT_MODE, int32_t, int32_t, int32_t, reference)(java.tools, TI_ENABLE, TI_EVENT_VM_INIT, NULL);
  return 0;
}
