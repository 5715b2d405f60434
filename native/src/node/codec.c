/*
 * Node-API addon: compresses, decompresses and hashes chunks of images on the threads of libuv's pool. Each function takes a Buffer,
 * which must not be changed until the promise that it returns is settled.
 */
#include <stdlib.h>

#include "../base/lz4.h"
#include "../base/xxh64.h"
#include "napi.h"

#define LONGEST 0x7e000000

/* One call, from its arguments to its result. */
struct job {
  void (*run)(struct job *);                        /* on a thread of the pool */
  napi_value (*result)(napi_env, struct job *);     /* on the thread of JavaScript; NULL for an exception */
  const char *error;                                /* why it failed */
  napi_deferred deferred;
  napi_async_work work;
  napi_ref source_buffer;
  napi_ref target_buffer;
  const void *source;
  size_t source_size;
  void *target;
  size_t target_size;
  int level;
  uint64_t hash;
};

static void release_job(napi_env env, struct job *job) {
  if (job->source_buffer != NULL) napi_delete_reference(env, job->source_buffer);
  if (job->target_buffer != NULL) napi_delete_reference(env, job->target_buffer);
  if (job->work != NULL) napi_delete_async_work(env, job->work);
  free(job);
}

static void release_memory(napi_env env, void *memory, void *hint) {
  (void)env, (void)hint;
  free(memory);
}

static void execute(napi_env env, void *data) {
  struct job *job = data;
  (void)env;
  job->run(job);
}

static void complete(napi_env env, napi_status status, void *data) {
  struct job *job = data;
  napi_value value = NULL, text;
  if (status != 0) job->error = "cancelled";
  if (job->error == NULL && (value = job->result(env, job)) == NULL) job->error = "out of memory";
  if (job->error == NULL) {
    napi_resolve_deferred(env, job->deferred, value);
  } else if (napi_create_string_utf8(env, job->error, SIZE_MAX, &text) == 0 && napi_create_error(env, NULL, text, &value) == 0) {
    napi_reject_deferred(env, job->deferred, value);
  }
  release_job(env, job);
}

static napi_value type_error(napi_env env, const char *text) {
  napi_throw_type_error(env, NULL, text);
  return NULL;
}

/* A job on the first argument, which must be a Buffer; the second, a number from `least` to `most`, goes to *number. NULL: an exception. */
static struct job *new_job(napi_env env, napi_callback_info info, int64_t least, int64_t most, int64_t *number) {
  size_t count = 2;
  napi_value arguments[2];
  void *source;
  struct job *job = calloc(1, sizeof *job);
  if (job == NULL || napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != 0 ||
      napi_get_buffer_info(env, arguments[0], &source, &job->source_size) != 0 || job->source_size > LONGEST) {
    type_error(env, "the first argument must be a Buffer of less than 2 GiB");
  } else if (number != NULL && (napi_get_value_int64(env, arguments[1], number) != 0 || *number < least || *number > most)) {
    type_error(env, "the second argument must be a number within its range");
  } else if (napi_create_reference(env, arguments[0], 1, &job->source_buffer) == 0) {
    job->source = source;
    return job;
  }
  if (job != NULL) release_job(env, job);
  return NULL;
}

static napi_value start(napi_env env, struct job *job) {
  napi_value promise, name;
  if (napi_create_string_utf8(env, "warp-tool codec", SIZE_MAX, &name) == 0 && napi_create_promise(env, &job->deferred, &promise) == 0 &&
      napi_create_async_work(env, NULL, name, execute, complete, job, &job->work) == 0 && napi_queue_async_work(env, job->work) == 0)
    return promise;
  release_job(env, job);
  napi_throw_error(env, NULL, "out of memory");
  return NULL;
}

static void run_compress(struct job *job) {
  static _Thread_local uint32_t workspace[LZ4_WORKSPACE / sizeof(uint32_t)];
  if (job->source_size < 2) return;
  job->target = malloc(job->source_size - 1);
  if (job->target == NULL) {
    job->error = "out of memory";
    return;
  }
  job->target_size = lz4_compress(job->source, job->source_size, job->target, job->source_size - 1, job->level, workspace);
  void *smaller = job->target_size > 0 ? realloc(job->target, job->target_size) : NULL;
  if (smaller != NULL) {
    job->target = smaller;
  } else if (job->target_size == 0) {
    free(job->target);
  }
}

static napi_value compressed(napi_env env, struct job *job) {
  napi_value value = NULL;
  if (job->target_size == 0) {
    napi_get_null(env, &value);
  } else if (napi_create_external_buffer(env, job->target_size, job->target, release_memory, NULL, &value) != 0) {
    free(job->target);
  }
  return value;
}

/* compress(buffer, level): an LZ4 block; null when it would be no smaller than the buffer. Levels 1 (fast) to 9 (small). */
static napi_value compress(napi_env env, napi_callback_info info) {
  int64_t level;
  struct job *job = new_job(env, info, LZ4_LEVEL_FAST, LZ4_LEVEL_BEST, &level);
  if (job == NULL) return NULL;
  job->level = (int)level;
  job->run = run_compress;
  job->result = compressed;
  return start(env, job);
}

static void run_decompress(struct job *job) {
  if (!lz4_decompress(job->source, job->source_size, job->target, job->target_size)) job->error = "damaged LZ4 block";
}

static napi_value decompressed(napi_env env, struct job *job) {
  napi_value value = NULL;
  napi_get_reference_value(env, job->target_buffer, &value);
  return value;
}

/* decompress(buffer, size): the `size` bytes that the LZ4 block holds; rejected when it is damaged or holds another number of bytes. */
static napi_value decompress(napi_env env, napi_callback_info info) {
  int64_t size;
  napi_value target;
  struct job *job = new_job(env, info, 0, LONGEST, &size);
  if (job == NULL) return NULL;
  job->target_size = (size_t)size;
  job->run = run_decompress;
  job->result = decompressed;
  if (napi_create_buffer(env, job->target_size, &job->target, &target) != 0 || napi_create_reference(env, target, 1, &job->target_buffer) != 0) {
    release_job(env, job);
    return NULL;
  }
  return start(env, job);
}

static void run_hash(struct job *job) { job->hash = xxh64(job->source, job->source_size); }

static napi_value hashed(napi_env env, struct job *job) {
  napi_value value = NULL;
  napi_create_bigint_uint64(env, job->hash, &value);
  return value;
}

/* hash(buffer): XXH64 with seed 0, a bigint. */
static napi_value hash(napi_env env, napi_callback_info info) {
  struct job *job = new_job(env, info, 0, 0, NULL);
  if (job == NULL) return NULL;
  job->run = run_hash;
  job->result = hashed;
  return start(env, job);
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  static const struct {
    const char *name;
    napi_callback function;
  } functions[] = {{"compress", compress}, {"decompress", decompress}, {"hash", hash}};
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, SIZE_MAX, functions[i].function, NULL, &function) != 0) return NULL;
    napi_set_named_property(env, exports, functions[i].name, function);
  }
  return exports;
}
