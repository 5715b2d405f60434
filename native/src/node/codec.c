/*
 * Node-API addon: compresses, decompresses, hashes and loads chunks of images, and searches and compares files, on the threads of libuv's
 * pool; packs and unpacks whole files of chunks on threads of its own. Buffers that a function takes must not be changed until the promise that it returns is settled.
 */
#include <stdlib.h>

#include "../base/lz4.h"
#include "../base/xxh64.h"
#include "chunks.h"
#include "napi.h"
#include "search.h"

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
  int input;
  int other_input;
  uint64_t offset;
  uint8_t status;
  struct found found;
  struct chunk_work chunks;
};

static void release_job(napi_env env, struct job *job) {
  if (job->source_buffer != NULL) napi_delete_reference(env, job->source_buffer);
  if (job->target_buffer != NULL) napi_delete_reference(env, job->target_buffer);
  if (job->work != NULL) napi_delete_async_work(env, job->work);
  free(job->found.values);
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

/* `errno` (0 < errno), `output` (1: of the output, 0: of the input) and `chunk` as properties of an error. */
static void describe_failure(napi_env env, napi_value error, const struct chunk_work *work) {
  const struct {
    const char *name;
    int64_t value;
  } facts[] = {{"errno", work->error}, {"output", work->error_in_output}, {"chunk", (int64_t)work->error_chunk}};
  for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
    napi_value number;
    if (napi_create_int64(env, facts[i].value, &number) == 0) napi_set_named_property(env, error, facts[i].name, number);
  }
}

static void complete(napi_env env, napi_status status, void *data) {
  struct job *job = data;
  napi_value value = NULL, text;
  if (status != 0) job->error = "cancelled";
  if (job->error == NULL && (value = job->result(env, job)) == NULL) job->error = "out of memory";
  if (job->error == NULL) {
    napi_resolve_deferred(env, job->deferred, value);
  } else if (napi_create_string_utf8(env, job->error, SIZE_MAX, &text) == 0 && napi_create_error(env, NULL, text, &value) == 0) {
    if (job->chunks.error != 0) describe_failure(env, value, &job->chunks);
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

/* ---- pieces of files ---- */

/* A job on two Buffers and `count` numbers from -1 up. NULL: an exception. */
static struct job *new_piece_job(napi_env env, napi_callback_info info, size_t buffers, int64_t *numbers, size_t count) {
  size_t given = buffers + count;
  napi_value arguments[5];
  struct job *job = calloc(1, sizeof *job);
  if (job == NULL || napi_get_cb_info(env, info, &given, arguments, NULL, NULL) != 0) goto bad;
  for (size_t i = 0; i < count; i++)
    if (napi_get_value_int64(env, arguments[buffers + i], &numbers[i]) != 0 || numbers[i] < -1 || numbers[i] > INT64_MAX / 2) goto bad;
  void *source;
  if (napi_get_buffer_info(env, arguments[0], &source, &job->source_size) != 0 || napi_create_reference(env, arguments[0], 1, &job->source_buffer) != 0) goto bad;
  job->source = source;
  if (buffers == 1) return job;
  if (napi_get_buffer_info(env, arguments[1], &job->target, &job->target_size) == 0 && job->target_size <= LONGEST &&
      napi_create_reference(env, arguments[1], 1, &job->target_buffer) == 0)
    return job;
bad:
  if (job != NULL) release_job(env, job);
  type_error(env, "Buffers and numbers within their ranges are needed");
  return NULL;
}

static void fail_with(struct job *job, int error) {
  if (error == 0) return;
  job->chunks.error = error;
  job->error = "reading failed";
}

/* What was found, as 32-bit numbers in a Buffer; null for nothing. */
static napi_value found_values(napi_env env, struct job *job) {
  napi_value value = NULL;
  if (job->found.count == 0) {
    napi_get_null(env, &value);
  } else if (napi_create_external_buffer(env, job->found.count * sizeof *job->found.values, job->found.values, release_memory, NULL, &value) == 0) {
    job->found.values = NULL;
  }
  return value;
}

static void run_find(struct job *job) { fail_with(job, search_memory(job->target, job->target_size, job->source, job->source_size, &job->found)); }

static void run_find_in_file(struct job *job) {
  fail_with(job, search_file(job->input, job->offset, job->target_size, job->source, job->source_size, &job->found));
}

/* A search for the first argument, `pattern`. */
static napi_value start_search(napi_env env, struct job *job, void (*run)(struct job *)) {
  if (job == NULL) return NULL;
  if (job->source_size == 0 || job->source_size > SEARCH_LONGEST || job->target_size > LONGEST) {
    release_job(env, job);
    return type_error(env, "the pattern or the size is out of range");
  }
  job->run = run;
  job->result = found_values;
  return start(env, job);
}

/* find(pattern, buffer): see search_memory. */
static napi_value find(napi_env env, napi_callback_info info) { return start_search(env, new_piece_job(env, info, 2, NULL, 0), run_find); }

/* findInFile(pattern, input, offset, size): see search_file. */
static napi_value find_in_file(napi_env env, napi_callback_info info) {
  int64_t numbers[3];
  struct job *job = new_piece_job(env, info, 1, numbers, 3);
  if (job != NULL) job->input = (int)numbers[0], job->offset = (uint64_t)numbers[1], job->target_size = (size_t)numbers[2];
  return start_search(env, job, run_find_in_file);
}

static void run_compare(struct job *job) {
  fail_with(job, search_differences(job->input, job->other_input, job->source, job->source_size / sizeof(struct compared), &job->found));
}

/* compare(stretches, a, b): see search_differences; the stretches are as in struct compared and aligned to 8. */
static napi_value compare(napi_env env, napi_callback_info info) {
  int64_t numbers[2];
  struct job *job = new_piece_job(env, info, 1, numbers, 2);
  if (job == NULL) return NULL;
  if ((uintptr_t)job->source % 8 != 0 || job->source_size % sizeof(struct compared) != 0) {
    release_job(env, job);
    return type_error(env, "the stretches have another size or alignment");
  }
  job->input = (int)numbers[0], job->other_input = (int)numbers[1];
  job->run = run_compare;
  job->result = found_values;
  return start(env, job);
}

static void run_load(struct job *job) { fail_with(job, chunks_load(job->input, job->source, job->target, &job->status)); }

static napi_value loaded(napi_env env, struct job *job) {
  napi_value value = NULL;
  napi_create_int64(env, job->status, &value);
  return value;
}

/* load(record, buffer, input): see chunks_load; resolves to the status. The record must be aligned to 8. */
static napi_value load(napi_env env, napi_callback_info info) {
  int64_t input;
  struct job *job = new_piece_job(env, info, 2, &input, 1);
  if (job == NULL) return NULL;
  const struct warp_chunk_record *record = job->source;
  if ((uintptr_t)record % 8 != 0 || job->source_size != sizeof *record || record->content_size > job->target_size) {
    release_job(env, job);
    return type_error(env, "the record or the buffer has another size");
  }
  job->input = (int)input;
  job->run = run_load;
  job->result = loaded;
  return start(env, job);
}

/* ---- whole files ---- */

#define STATE_HEAD 16

static void run_pack(struct job *job) {
  if (chunks_pack(&job->chunks) < 0) job->error = "packing failed";
}

static void run_unpack(struct job *job) {
  if (chunks_unpack(&job->chunks) < 0) job->error = "unpacking failed";
}

static napi_value packed(napi_env env, struct job *job) {
  napi_value value = NULL;
  napi_create_int64(env, (int64_t)job->chunks.end, &value);
  return value;
}

static napi_value unpacked(napi_env env, struct job *job) {
  napi_value value = NULL;
  (void)job;
  napi_get_null(env, &value);
  return value;
}

/*
 * A job on (records, state, input, output, threads, and two numbers more): `records` are warp_chunk_records, `state` is what is shared
 * while it runs: u64 bytes of content done, u32 whether to end, u32, and one byte for the status of each record. Both must be aligned to 8.
 */
static struct job *new_file_job(napi_env env, napi_callback_info info, int64_t more[2]) {
  size_t count = 7, state_size;
  napi_value arguments[7];
  int64_t numbers[5];
  void *records, *state;
  struct job *job = calloc(1, sizeof *job);
  if (job == NULL || napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != 0) goto bad;
  for (size_t i = 0; i < 5; i++)
    if (napi_get_value_int64(env, arguments[2 + i], &numbers[i]) != 0) goto bad;
  if (napi_get_buffer_info(env, arguments[0], &records, &job->source_size) != 0 || napi_get_buffer_info(env, arguments[1], &state, &state_size) != 0) goto bad;
  const size_t record_count = job->source_size / sizeof(struct warp_chunk_record);
  const bool aligned = ((uintptr_t)records | (uintptr_t)state) % 8 == 0;
  if (!aligned || job->source_size % sizeof(struct warp_chunk_record) != 0 || state_size != STATE_HEAD + record_count) goto bad;
  if (numbers[0] < 0 || numbers[1] < -1 || numbers[2] < 1 || numbers[2] > 256) goto bad;
  job->chunks = (struct chunk_work){
      .input = (int)numbers[0], .output = (int)numbers[1], .threads = (uint32_t)numbers[2], .records = records, .count = record_count, .progress = state, .cancelled = (uint32_t *)state + 2, .status = (uint8_t *)state + STATE_HEAD,
  };
  more[0] = numbers[3], more[1] = numbers[4];
  if (napi_create_reference(env, arguments[0], 1, &job->source_buffer) == 0 && napi_create_reference(env, arguments[1], 1, &job->target_buffer) == 0) return job;
bad:
  if (job != NULL) release_job(env, job);
  type_error(env, "records, state and numbers within their ranges are needed");
  return NULL;
}

/* pack(records, state, input, output, threads, end, level): see chunks_pack; resolves to the new end of the output. */
static napi_value pack(napi_env env, napi_callback_info info) {
  int64_t more[2];
  struct job *job = new_file_job(env, info, more);
  if (job == NULL) return NULL;
  if (more[0] < 0 || more[1] < LZ4_LEVEL_FAST || more[1] > LZ4_LEVEL_BEST) {
    release_job(env, job);
    return type_error(env, "the end or the level is out of range");
  }
  job->chunks.end = (uint64_t)more[0];
  job->chunks.level = (int)more[1];
  job->run = run_pack;
  job->result = packed;
  return start(env, job);
}

/* unpack(records, state, input, output or -1, threads, moved, 0): see chunks_unpack; resolves to null. */
static napi_value unpack(napi_env env, napi_callback_info info) {
  int64_t more[2];
  struct job *job = new_file_job(env, info, more);
  if (job == NULL) return NULL;
  job->chunks.moved = more[0];
  job->run = run_unpack;
  job->result = unpacked;
  return start(env, job);
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  static const struct {
    const char *name;
    napi_callback function;
  } functions[] = {{"compress", compress}, {"decompress", decompress}, {"hash", hash}, {"find", find}, {"findInFile", find_in_file}, {"compare", compare}, {"load", load}, {"pack", pack}, {"unpack", unpack}};
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, SIZE_MAX, functions[i].function, NULL, &function) != 0) return NULL;
    napi_set_named_property(env, exports, functions[i].name, function);
  }
  return exports;
}
