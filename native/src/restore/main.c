/* warp-restore: becomes the program of an image. */
#include <linux/mman.h>

#include "restore.h"

static const char usage[] =
    "usage: warp-restore IMAGE [--concurrent | --no-concurrent] [--load-concurrency N] [--no-direct-map]\n"
    "                    [--keep-pid] [--verify] [--env NAME=VALUE …] [--inherit-fd N=FD …] [--policies FILE]\n"
    "                    [--stats FILE]\n"
    "                    [--load-faults auto|userfaultfd|userfaultfd-user|signals] [--load-trace FILE]\n"
    "                    [--restore-data HEX] [--notify SIGNAL[:VALUE]] [--image-fd FD] [--log-level error|warn|info|debug]\n"
    "                    [--encryption-key-file FILE | --encryption-key-env NAME]\n"
    "                    [--engine warp|simengine|pauseengine] [-- ARGUMENT…]\n"
    "\n"
    "IMAGE is a directory with core.img, or an image file; with --image-fd it is only what messages call the file that the\n"
    "caller has opened as FD, which needs no name. This process becomes the program as it was at the\n"
    "checkpoint, with the standard streams of this command. With --keep-pid it has its old process and thread ids, in\n"
    "namespaces of its own. --verify compares all content with its hashes; that is always done for\n"
    "images of up to 16 MiB, compressed ones and with --no-direct-map, and for the metadata. --env sets a variable for the program.\n"
    "--inherit-fd puts the caller's descriptor FD in the place of the program's descriptor N; all others are closed.\n"
    "--policies says what becomes of open files, pipes and sockets, before what the image says (docs/policies.md);\n"
    "with --list-policies that is only printed, a line NUMBER ACTION for each descriptor that a rule is about.\n"
    "Memory that cannot be mapped from the image (it is compressed) is loaded by N threads while the program runs,\n"
    "unless that is little or --no-concurrent is given; --concurrent does so with any image. --load-faults says how\n"
    "absent memory is noticed, --load-trace records what was loaded when; N = 0 loads only what is asked for.\n"
    "--restore-data hands bytes to the program (crlib.h), --notify queues a signal to it before it goes on.\n"
    "The key of an encrypted image is 64 hexadecimal digits or base64 of 32 bytes; in a file also 32 bytes as they are. The program gets neither\n"
    "the key nor the variable.\n"
    "'warp-restore --follow PID' waits for a child that another program has left to it, and ends as that does.\n"
    "With --engine pauseengine IMAGE is a directory whose file pid names a process that a checkpoint by that engine has paused:\n"
    "it goes on where it is, with what --env, --restore-data and the arguments give it, and this command ends with 0.\n"
    "What stands behind -- is for programs that ask for it: Java's get -DNAME=VALUE as properties, and then a class with\n"
    "a main method to be run, and its arguments (docs/java.md).\n";

static struct restore the_restore = {.options = {.direct_map = true, .image_fd = -1}};

static int add_variable(struct options *options, const char *variable) {
  size_t size = string_length(variable) + 1;
  const char *equals = find_character(variable, '=');
  if (equals == NULL || equals == variable) {
    program_error("--env %s is not NAME=VALUE", variable);
    return 2;
  }
  if (size > sizeof options->environment - options->environment_size) {
    program_error("--env %s: the variables given are longer than %lu bytes together", variable, sizeof options->environment);
    return 2;
  }
  copy_bytes(options->environment + options->environment_size, variable, size);
  options->environment_size += (uint32_t)size;
  return 0;
}

/* What names policies to a Java virtual machine with CRaC names them here too. */
#define JAVA_POLICIES "-Djdk.crac.resource-policies="

static int add_argument(struct options *options, const char *argument) {
  if (starts_with(argument, JAVA_POLICIES) && options->policies[0] == 0) absolute_path(argument + sizeof JAVA_POLICIES - 1, options->policies, sizeof options->policies);
  size_t size = string_length(argument) + 1;
  if (size > sizeof options->arguments - options->arguments_size) {
    program_error("the arguments behind -- are longer than %lu bytes together", sizeof options->arguments);
    return 2;
  }
  copy_bytes(options->arguments + options->arguments_size, argument, size);
  options->arguments_size += (uint32_t)size;
  return 0;
}

static int add_inherited(struct options *options, const char *text) {
  const char *at = text;
  const uint64_t number = parse_decimal(&at);
  const char *const equals = at;
  uint64_t fd = 0;
  if (at > text && *at == '=') at++, fd = parse_decimal(&at);
  if (equals == text || *equals != '=' || at == equals + 1 || *at != 0 || number > INT32_MAX || fd > INT32_MAX) {
    program_error("--inherit-fd %s is not N=FD, two descriptors", text);
    return 2;
  }
  if (sys(fcntl, fd, F_GETFD, 0) < 0) {
    program_error("--inherit-fd %s: descriptor %lu is not open: have the caller open it and not close it on exec", text, fd);
    return 2;
  }
  if (options->inherited_count == MOST_INHERITED) {
    program_error("--inherit-fd can be given %u times", MOST_INHERITED);
    return 2;
  }
  options->inherited[options->inherited_count++] = (struct inherited_descriptor){(uint32_t)number, (int)fd};
  return 0;
}

static bool parse_faults(const char *name, uint32_t *ret) {
  static const char *const names[] = {"auto", "userfaultfd", "userfaultfd-user", "signals"};
  for (uint32_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strings_equal(name, names[i])) {
      *ret = i;
      return true;
    }
  return false;
}

static int parse_options(int argc, char **argv, struct options *options) {
  const char *value;
  for (int i = 1; i < argc; i++) {
    if (strings_equal(argv[i], "--help") || strings_equal(argv[i], "-h")) {
      write_fully(1, usage, sizeof usage - 1);
      sys(exit_group, 0);
    } else if (strings_equal(argv[i], "--")) {
      for (i++; i < argc; i++)
        if (add_argument(options, argv[i]) != 0) return 2;
    } else if (strings_equal(argv[i], "--no-direct-map")) {
      options->direct_map = false;
    } else if (strings_equal(argv[i], "--verify")) {
      options->verify = true;
    } else if (strings_equal(argv[i], "--concurrent")) {
      options->concurrent = CONCURRENT_ALWAYS;
    } else if (strings_equal(argv[i], "--no-concurrent")) {
      options->concurrent = CONCURRENT_NEVER;
    } else if (option_with_value(argc, argv, &i, "--load-concurrency", &value)) {
      const char *at = value;
      options->load_concurrency = (uint32_t)parse_decimal(&at);
      options->load_concurrency_given = true;
      if (at == value || *at != 0 || options->load_concurrency > 64) {
        program_error("--load-concurrency %s: give the number of loader threads, 0 to 64", value);
        return 2;
      }
    } else if (option_with_value(argc, argv, &i, "--load-faults", &value)) {
      if (!parse_faults(value, &options->load_faults)) {
        program_error("--load-faults %s: choose auto, userfaultfd, userfaultfd-user or signals", value);
        return 2;
      }
    } else if (option_with_value(argc, argv, &i, "--restore-data", &value)) {
      size_t size;
      if (!parse_bytes(value, options->restore_data, sizeof options->restore_data, &size)) {
        program_error("--restore-data: give at most %lu bytes as hexadecimal digits", sizeof options->restore_data);
        return 2;
      }
      options->restore_data_size = (uint32_t)size;
    } else if (option_with_value(argc, argv, &i, "--notify", &value)) {
      const char *at = value;
      options->notify_signal = (uint32_t)parse_decimal(&at);
      if (*at == ':') at++, options->notify_value = (int32_t)parse_signed(&at);
      if (*at != 0 || options->notify_signal == 0 || options->notify_signal > 64) {
        program_error("--notify %s: give a signal's number, and a value behind a colon", value);
        return 2;
      }
    } else if (option_with_value(argc, argv, &i, "--load-trace", &value)) {
      absolute_path(value, options->trace, sizeof options->trace);
    } else if (option_with_value(argc, argv, &i, "--encryption-key-file", &value)) {
      options->key_file = value;
    } else if (option_with_value(argc, argv, &i, "--encryption-key-env", &value)) {
      options->key_variable = value;
    } else if (option_with_value(argc, argv, &i, "--image-fd", &value)) {
      const char *at = value;
      const uint64_t fd = parse_decimal(&at);
      if (at == value || *at != 0 || fd > INT32_MAX || sys(fcntl, fd, F_GETFD, 0) < 0) {
        program_error("--image-fd %s is not an open descriptor: have the caller open the image and not close it on exec", value);
        return 2;
      }
      options->image_fd = (int32_t)fd;
    } else if (strings_equal(argv[i], "--keep-pid")) {
      options->keep_pid = true;
    } else if (option_with_value(argc, argv, &i, "--env", &value)) {
      if (add_variable(options, value) != 0) return 2;
    } else if (option_with_value(argc, argv, &i, "--inherit-fd", &value)) {
      if (add_inherited(options, value) != 0) return 2;
    } else if (option_with_value(argc, argv, &i, "--engine", &value)) {
      if (!engine_parse(value, &options->engine)) {
        program_error("--engine %s: choose warp, simengine or pauseengine", value);
        return 2;
      }
    } else if (option_with_value(argc, argv, &i, "--follow", &value)) {
      const char *at = value;
      options->follow = (int32_t)parse_decimal(&at);
      if (at == value || *at != 0 || options->follow <= 0) {
        program_error("--follow %s: give the process id of a child", value);
        return 2;
      }
    } else if (strings_equal(argv[i], "--list-policies")) {
      options->list_policies = true;
    } else if (option_with_value(argc, argv, &i, "--policies", &value)) {
      absolute_path(value, options->policies, sizeof options->policies);
    } else if (option_with_value(argc, argv, &i, "--stats", &value)) {
      absolute_path(value, options->stats, sizeof options->stats);
    } else if (option_with_value(argc, argv, &i, "--log-level", &value)) {
      if (!log_level_parse(value, &log_level)) {
        program_error("--log-level %s: choose error, warn, info or debug", value);
        return 2;
      }
    } else if (argv[i][0] != '-' && options->image[0] == 0) {
      format(options->image, sizeof options->image, "%s", argv[i]);
    } else {
      program_error("unknown argument %s: see warp-restore --help", argv[i]);
      return 2;
    }
  }
  if (options->key_file != NULL && options->key_variable != NULL) {
    program_error("--encryption-key-file and --encryption-key-env name a key each: give one");
    return 2;
  }
  if (options->image[0] == 0 && options->follow == 0) {
    program_error("name the image to restore: see warp-restore --help");
    return 2;
  }
  return 0;
}

/* ---- a place to stand ---- */

struct used_range {
  uint64_t start;
  uint64_t end;
};

static bool less_range(const void *a, const void *b) { return ((const struct used_range *)a)->start < ((const struct used_range *)b)->start; }

/* Finds `size` bytes that neither the image nor this process uses. */
static uint64_t find_hole(struct restore *restore, uint64_t size) {
  struct list used;
  list_init(&used, &restore->arena, sizeof(struct used_range));
  for (size_t i = 0; i < restore->image.vmas.count; i++) {
    const struct warp_vma_record *vma = view_at(&restore->image.vmas, struct warp_vma_record, i);
    struct used_range *range = list_add(&used);
    /* Room for a stack to grow down and a heap to grow up. */
    *range = (struct used_range){vma->kind == WARP_VMA_STACK ? vma->start - 64 * MIB : vma->start, vma->kind == WARP_VMA_HEAP ? vma->end + 64 * MIB : vma->end};
  }
  size_t length;
  long error;
  const char *at = read_whole_file(&restore->arena, "/proc/self/maps", &length, &error);
  struct map_line line;
  while (at != NULL && (at = parse_map_line(at, &line)) != NULL) {
    struct used_range *range = list_add(&used);
    *range = (struct used_range){line.start, line.end};
  }
  list_sort(&used, less_range);
  uint64_t candidate = 0x100000000ul;
  for (size_t i = 0; i < used.count; i++) {
    const struct used_range *range = list_at(&used, struct used_range, i);
    if (range->start > candidate && range->start - candidate >= size + 2 * MIB) break;
    candidate = max_u64(candidate, round_up(range->end, PAGE_SIZE) + MIB);
  }
  return candidate;
}

#define STACK_SIZE (512 * KIB)
/* Enough for the kernel's vDSO with its data areas. */
#define VDSO_ROOM (256 * KIB)

static _Noreturn void bad(struct restore *restore) {
  program_error("%s", restore->failure.text);
  for (;;) sys(exit_group, 2);
}

/* Runs in the copy, on its own stack, with the original's memory to be given up. */
static void restore_in_place(void *argument) {
  struct restore *restore = &the_restore;
  (void)argument;
  program_log_to_stderr("warp-restore");
  struct failure *failure = &restore->failure;
  char path[4300];
  format(path, sizeof path, "%s", restore->image.path);
  int image_fd = restore->image.fd;
  /* The metadata comes along: it has been read and hashed. */
  uint64_t metadata_size = restore->image.anchor.metadata_size;
  long metadata = sys(mremap, restore->image.metadata, metadata_size, metadata_size, MREMAP_MAYMOVE | MREMAP_FIXED, arena_region.start);
  arena_region.start += metadata_size;
  fill_bytes(&restore->image, 0, sizeof restore->image);
  restore->arena = (struct arena){NULL};
  /* Everything that points into memory is made again, here. */
  if (image_open(&restore->image, &restore->decryption, &restore->arena, path, image_fd, metadata < 0 ? NULL : (uint8_t *)metadata, failure) < 0) bad(restore);
  end_phase(restore, PHASE_PLACE);
  uint32_t highest = 2;
  for (size_t i = 0; i < restore->image.descriptors.count; i++) {
    uint32_t number = view_at(&restore->image.descriptors, struct warp_descriptor_record, i)->number;
    highest = number > highest ? number : highest;
  }
  uint64_t limit[2] = {0, 0};
  sys(prlimit64, 0, 7 /* RLIMIT_NOFILE */, NULL, limit);
  limit[0] = limit[1];
  sys(prlimit64, 0, 7, limit, NULL);
  restore->lowest_own_descriptor = highest + 1;
  if (read_policies(restore) < 0) bad(restore);
  keep_callers_descriptors(restore);
  for (int i = 0; i < 3; i++) restore->standard[i] = move_descriptor(restore, i);
  if (restore->standard[2] >= 0) program_log_descriptor = restore->standard[2];
  restore->image_fd = move_descriptor(restore, restore->image.fd);
  if (restore->image_fd < 0) {
    fail(failure, "%s: descriptor %u is in use in it, and this process may open no more than %lu: raise RLIMIT_NOFILE", path, highest, limit[1]);
    bad(restore);
  }
  if (open_stats(restore) < 0 || become_user(restore) < 0 || enter_directory(restore) < 0) bad(restore);
  choose_mode(restore);
  if (!restore->options.load_concurrency_given) restore->options.load_concurrency = (uint32_t)processor_count();
  if (open_content(restore) < 0) bad(restore);
  prefetch(restore);
  end_phase(restore, PHASE_CONTENT);
  if (check_host(restore) < 0 || open_files(restore) < 0) bad(restore);
  end_phase(restore, PHASE_FILES);
  if (create_objects(restore) < 0 || restore_descriptors(restore) < 0) bad(restore);
  end_phase(restore, PHASE_DESCRIPTORS);
  if (clear_memory(restore) < 0) bad(restore);
  end_phase(restore, PHASE_CLEAR);
  if (restore_memory(restore) < 0 || restore_vdso(restore) < 0) bad(restore);
  forget_keys(restore);
  end_phase(restore, PHASE_AREAS);
  settle_mode(restore);
  trace_loaded(restore);
  if (restore_process(restore) < 0 || restore_locks(restore) < 0 || restore_timers(restore) < 0) bad(restore);
  end_phase(restore, PHASE_PROCESS);
  log_debug("memory: %lu bytes mapped directly in %lu pieces, %lu bytes read in %lu reads, %lu bytes of shared memory", restore->stats.direct_bytes, restore->stats.direct_mappings, restore->stats.eager_bytes,
            restore->stats.eager_reads, restore->stats.object_bytes);
  log_info("restored in %lu us: %lu threads go on", restore->stats.end_us[PHASE_PROCESS], restore->image.threads.count);
  restore_threads(restore);
}

void forget_keys(struct restore *restore) {
  struct decryption *decryption = &restore->decryption;
  wipe(decryption->key, sizeof decryption->key);
  wipe(decryption->image_key, sizeof decryption->image_key);
  wipe(&decryption->cipher, sizeof decryption->cipher);
}

static int read_key(const struct options *options, char **environment, struct decryption *decryption, struct failure *failure) {
  decryption->key_given = options->key_file != NULL || options->key_variable != NULL;
  if (options->key_file != NULL) return key_read_file(options->key_file, decryption->key, failure);
  return options->key_variable == NULL ? 0 : key_take_variable(environment, options->key_variable, decryption->key, failure);
}

_Noreturn void move_away(struct restore *restore) {
  uint64_t region = 64 * MIB + 8 * restore->image.anchor.metadata_size + min_u64(processor_count(), MOST_LOADERS) * 2 * CHUNK_LARGEST;
  uint64_t code = program_size();
  uint64_t total = round_up(code + STACK_SIZE + VDSO_ROOM + region, PAGE_SIZE);
  uint64_t base = find_hole(restore, total);
  long mapped = map_anonymous(base, total, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_NORESERVE | MAP_FIXED_NOREPLACE);
  if (mapped != (long)base) {
    fail(&restore->failure, "cannot map %lu bytes for the restorer at 0x%lx: %s", total, base, error_text(mapped));
    bad(restore);
  }
  restore->bootstrap = base;
  restore->bootstrap_size = total;
  uint64_t stack_top = base + code + STACK_SIZE;
  restore->vdso_place = stack_top;
  arena_region = (struct arena_region){stack_top + VDSO_ROOM, base + total};
  copy_bytes((void *)base, (const void *)program_base(), code);
  forget_keys(restore);
  program_relocate(base);
  log_debug("the restorer stands at 0x%lx", base);
  uint64_t function = (uint64_t)restore_in_place - program_base() + base;
  arch_jump_on_stack(function, 0, stack_top - 8);
}

static int resume_paused(struct restore *restore, const char *directory) {
  const struct options *options = &restore->options;
  const struct resume resume = {options->restore_data_size, options->environment_size, options->arguments_size, options->restore_data, options->environment, options->arguments};
  if (options->engine == ENGINE_PAUSE && simulated_resume(directory, &resume, &restore->failure) == 0) return 0;
  fail(&restore->failure, "%s: simengine keeps no image, and its process went on: nothing can be restored", directory);
  bad(restore);
}

int program_main(int argc, char **argv, char **environment) {
  struct restore *restore = &the_restore;
  program_log_to_stderr("warp-restore");
  restore->stats.begin_ns = clock_ns(CLOCK_MONOTONIC_);
  int status = parse_options(argc, argv, &restore->options);
  if (status != 0) return status;
  if (restore->options.follow != 0) follow_child(restore->options.follow);
  char path[4300];
  const int image_fd = restore->options.image_fd;
  if (image_fd >= 0)
    format(path, sizeof path, "%s", restore->options.image);
  else
    absolute_path(restore->options.image, path, sizeof path);
  if (restore->options.engine != ENGINE_WARP) return resume_paused(restore, path);
  restore->stats.timed = restore->options.stats[0] != 0 || restore->options.trace[0] != 0 || log_level >= LOG_INFO;
  if (read_key(&restore->options, environment, &restore->decryption, &restore->failure) < 0) bad(restore);
  if (image_open(&restore->image, &restore->decryption, &restore->arena, path, image_fd, NULL, &restore->failure) < 0) bad(restore);
  if (restore->options.list_policies) {
    if (print_treatments(restore) < 0) bad(restore);
    return 0;
  }
  end_phase(restore, PHASE_METADATA);
  const struct warp_anchor *anchor = &restore->image.anchor;
  if (anchor->format_minor > WARP_FORMAT_MINOR)
    log_warn("%s: image format %u.%u is newer than %u.%u, which this restorer knows: what is new in it does not come back", restore->image.path, anchor->format_major, anchor->format_minor, WARP_FORMAT_MAJOR, WARP_FORMAT_MINOR);
  log_debug("%s: format %u.%u, %lu segments, %lu memory areas, %lu threads, %lu descriptors", restore->image.path, restore->image.anchor.format_major, restore->image.anchor.format_minor, restore->image.segment_count,
            restore->image.vmas.count, restore->image.threads.count, restore->image.descriptors.count);
  if (restore->options.keep_pid && restore_in_namespace(restore) < 0) bad(restore);
  move_away(restore);
}
