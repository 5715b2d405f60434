/*
 * Stands in for a Java VM with CRaC: makes its calls in its order.
 *   host LIBRARY interface                  prints what the library offers, and checks both generations of the structures
 *   host LIBRARY checkpoint DIR [KEY=VALUE…]  runs threads, checkpoints, and goes on for ever when restored
 *   host LIBRARY restore DIR [NAME=]LABEL BITMAP COMPARISON DATA [KEY=VALUE…]   a young VM that restores; NAME is cpu.arch by default
 * Built with OLDER_VM it has the structures of 2025.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "crlib.h"

#define REQUIRE(condition)                                                \
  do {                                                                    \
    if (!(condition)) {                                                   \
      printf("FAIL %s:%d: %s\n", __FILE__, __LINE__, #condition);         \
      exit(1);                                                            \
    }                                                                     \
  } while (0)

#ifdef OLDER_VM
#define DESCRIPTION_SIZE offsetof(crlib_description_t, configuration_options)
#else
#define DESCRIPTION_SIZE sizeof(crlib_description_t)
#endif

static const crlib_api_t *api;
static const crlib_restore_data_t *restore_data;
static const crlib_user_data_t *user_data;
static const crlib_image_constraints_t *constraints;
static const crlib_image_score_t *score;
static const crlib_description_t *description;

static void load(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    printf("FAIL dlopen: %s\n", dlerror());
    exit(1);
  }
  const crlib_api_t *(*entry)(int, size_t) = (const crlib_api_t *(*)(int, size_t))dlsym(library, CRLIB_API_FUNC);
  REQUIRE(entry != NULL);
  REQUIRE(entry(1, sizeof *api) == NULL && entry(3, sizeof *api) == NULL && entry(CRLIB_API_VERSION, sizeof *api + 8) == NULL);
  REQUIRE(entry(CRLIB_API_VERSION, sizeof *api - 8) != NULL);
  api = entry(CRLIB_API_VERSION, sizeof *api);
  REQUIRE(api != NULL);
  restore_data = (const crlib_restore_data_t *)api->get_extension(CRLIB_EXTENSION_RESTORE_DATA_NAME, sizeof *restore_data);
  user_data = (const crlib_user_data_t *)api->get_extension(CRLIB_EXTENSION_USER_DATA_NAME, sizeof *user_data);
  constraints = (const crlib_image_constraints_t *)api->get_extension(CRLIB_EXTENSION_IMAGE_CONSTRAINTS_NAME, sizeof *constraints);
  score = (const crlib_image_score_t *)api->get_extension(CRLIB_EXTENSION_IMAGE_SCORE_NAME, sizeof *score);
  description = (const crlib_description_t *)api->get_extension(CRLIB_EXTENSION_DESCRIPTION_NAME, DESCRIPTION_SIZE);
  REQUIRE(restore_data != NULL && user_data != NULL && constraints != NULL && score != NULL && description != NULL);
}

/* What makes no sense is refused, and does no harm. */
static void refuse(crlib_conf_t *conf) {
  static unsigned char large[1 << 20];
  const void *data;
  size_t size;
  REQUIRE(api->checkpoint(NULL) != 0 && api->restore(NULL) != 0 && api->get_extension(NULL, 0) == NULL);
  REQUIRE(!api->can_configure(conf, NULL) && !api->configure(conf, NULL, "1") && !api->configure(NULL, "keep_running", "true"));
  REQUIRE(!api->can_configure(conf, "nothing") && !api->configure(conf, "nothing", "1") && !api->configure(conf, "keep_running", "perhaps"));
  REQUIRE(api->configure(conf, "keep_running", "true") && api->configure(conf, "compression.level", "9") && !api->configure(conf, "compression.level", "10"));
  /* Without a place for the image neither works. */
  REQUIRE(!api->configure(conf, "image_location", "") && !api->configure(conf, "image_location", NULL));
  REQUIRE(api->checkpoint(conf) != 0 && api->restore(conf) != 0);
  REQUIRE(restore_data->set_restore_data(conf, NULL, 0) && !restore_data->set_restore_data(conf, NULL, 4) && !restore_data->set_restore_data(NULL, "x", 1));
  REQUIRE(!restore_data->set_restore_data(conf, large, sizeof large));
  REQUIRE(!user_data->set_user_data(conf, NULL, "x", 1) && !user_data->set_user_data(conf, "", "x", 1) && !user_data->set_user_data(NULL, "x", "x", 1));
  REQUIRE(user_data->set_user_data(conf, "never set", NULL, 0) && user_data->load_user_data(conf) == NULL && user_data->load_user_data(NULL) == NULL);
  REQUIRE(!user_data->lookup_user_data(NULL, "x", &data, &size));
  user_data->destroy_user_data(NULL);
  REQUIRE(!constraints->set_label(conf, NULL, "x") && !constraints->set_label(conf, "x", NULL) && !constraints->set_label(NULL, "x", "x"));
  REQUIRE(!constraints->set_bitmap(conf, "x", NULL, 1) && !constraints->set_bitmap(conf, NULL, large, 1) && constraints->set_bitmap(conf, "x", NULL, 0));
  REQUIRE(!constraints->require_label(conf, NULL, "x") && !constraints->require_label(conf, "x", NULL));
  REQUIRE(!constraints->require_bitmap(conf, "x", large, 1, (crlib_bitmap_comparison_t)3) && !constraints->require_bitmap(conf, "x", NULL, 1, CRLIB_BITMAP_EQUALS));
  REQUIRE(!constraints->is_failed(conf, "x") && !constraints->is_failed(conf, NULL) && constraints->get_failed_bitmap(conf, "x", NULL, 0) == 0);
  REQUIRE(!score->set_score(conf, NULL, 1) && !score->set_score(NULL, "x", 1) && !score->set_score(conf, "x", NAN) && !score->set_score(conf, "x", INFINITY));
}

static int show_interface(void) {
  const crlib_extension_t *const all[] = {&restore_data->header, &user_data->header, &constraints->header, &score->header, &description->header};
  crlib_conf_t *conf = api->create_conf();
  REQUIRE(conf != NULL && api->get_extension("no such thing", 0) == NULL);
  size_t extensions = 0, keys = 0;
  for (const crlib_extension_t *const *at = description->supported_extensions(conf); *at != NULL; at++, extensions++) {
    /* A VM that knows fewer members gets it, one that knows more does not. */
    REQUIRE(extensions < 5 && *at == all[extensions]);
    REQUIRE(api->get_extension((*at)->name, (*at)->size) == *at && api->get_extension((*at)->name, sizeof **at) == *at && api->get_extension((*at)->name, (*at)->size + 8) == NULL);
  }
  REQUIRE(extensions == 5);
  printf("identity %s\n%s\n%s", description->identity(conf), description->description(conf), description->configuration_doc(conf));
  for (const char *const *key = description->configurable_keys(conf); *key != NULL; key++, keys++) REQUIRE(api->can_configure(conf, *key) && strstr(description->configuration_doc(conf), *key) != NULL);
#ifndef OLDER_VM
  const crlib_conf_option_t *options = description->configuration_options(conf);
  for (size_t i = 0; i < keys; i++) {
    REQUIRE(strcmp(options[i].key, description->configurable_keys(conf)[i]) == 0 && options[i].value_type != NULL && options[i].description != NULL);
    REQUIRE((options[i].flags & (CRLIB_CONF_OPTION_CHECKPOINT | CRLIB_CONF_OPTION_RESTORE)) != 0 && options[i].flags < 2 * CRLIB_CONF_OPTION_OBSOLETE);
  }
  REQUIRE(options[keys].key == NULL);
#endif
  char buffer[4] = "abc";
  REQUIRE(restore_data->get_restore_data(conf, buffer, sizeof buffer) == 0 && strcmp(buffer, "abc") == 0);
  refuse(conf);
  api->destroy_conf(conf);
  api->destroy_conf(NULL);
  printf("interface ok\n");
  return 0;
}

static void configure_all(crlib_conf_t *conf, char **settings) {
  for (; *settings != NULL; settings++) {
    char key[256];
    const char *equals = strchr(*settings, '=');
    REQUIRE(equals != NULL);
    snprintf(key, sizeof key, "%.*s", (int)(equals - *settings), *settings);
    REQUIRE(api->configure(conf, key, equals + 1));
  }
}

static volatile unsigned long counters[3];

static void *count(void *argument) {
  for (volatile unsigned long *counter = argument;; (*counter)++) usleep(1000);
  return NULL;
}

static void write_engine_file(const char *directory) {
  char path[4096];
  mkdir(directory, 0700);
  snprintf(path, sizeof path, "%s/engine", directory);
  FILE *file = fopen(path, "w");
  REQUIRE(file != NULL && fputs("warp", file) >= 0 && fclose(file) == 0);
}

static int take_checkpoint(const char *directory, char **settings) {
  crlib_conf_t *conf = api->create_conf();
  configure_all(conf, settings);
  REQUIRE(api->configure(conf, "image_location", directory));
  pthread_t threads[3];
  for (size_t i = 0; i < 3; i++) REQUIRE(pthread_create(&threads[i], NULL, count, (void *)&counters[i]) == 0);
  printf("pid %d\n", getpid());
  fflush(stdout);
  for (int generation = 0;; generation++) {
    const unsigned char features[] = {0x0f, 0x80, 0x01};
    REQUIRE(api->configure(conf, "image_location", directory));
    /* Names and values are copied. */
    char name[] = "cpu.arch", value[] = "amd64";
    REQUIRE(constraints->set_label(conf, name, "wrong") && constraints->set_label(conf, name, value) && constraints->set_bitmap(conf, "cpu.features", features, sizeof features));
    REQUIRE(score->set_score(conf, "java.uptime", 1.0) && score->set_score(conf, "java.uptime", 12.25) && score->set_score(conf, "negative", -0.5));
    REQUIRE(user_data->set_user_data(conf, "note", "kept with the image", 20) && user_data->set_user_data(conf, "gone", "x", 1) && user_data->set_user_data(conf, "gone", NULL, 0));
    memset(name, 'x', sizeof name - 1);
    memset(value, 'x', sizeof value - 1);
    write_engine_file(directory);
    const unsigned long before = counters[0];
    int result = api->checkpoint(conf);
    if (result != 0) {
      printf("checkpoint failed: %d\n", result);
      fflush(stdout);
      return 3;
    }
    int data = -1;
    size_t size = restore_data->get_restore_data(conf, &data, sizeof data);
    unsigned char first = 0;
    REQUIRE(restore_data->get_restore_data(conf, NULL, 0) == size && restore_data->get_restore_data(conf, &first, 1) == size && (size == 0 || first == (unsigned char)data));
    REQUIRE(counters[0] >= before);
    const unsigned long reached = counters[2];
    while (counters[2] < reached + 20) usleep(1000);
    crlib_user_data_storage_t *storage = user_data->load_user_data(conf);
    const void *note = NULL;
    size_t note_size = 0;
    /* A key in a variable is wiped when it has been used. */
    bool readable = true;
    for (char **setting = settings; *setting != NULL; setting++) readable &= strncmp(*setting, "encryption.key.env=", 19) != 0;
    REQUIRE((storage != NULL) == readable);
    REQUIRE(!readable || (user_data->lookup_user_data(storage, "note", &note, &note_size) && note_size == 20 && memcmp(note, "kept with the image", 20) == 0));
    REQUIRE(!readable || !user_data->lookup_user_data(storage, "gone", &note, &note_size));
    if (readable) user_data->destroy_user_data(storage);
    printf("generation %d: back in %d with %zu bytes of data: %d\n", generation, getpid(), size, size == sizeof data ? data : -1);
    fflush(stdout);
    char line[16];
    if (fgets(line, sizeof line, stdin) == NULL || strcmp(line, "again\n") != 0) break;
  }
  for (;;) pause();
}

static int restore(const char *directory, const char *label, const char *bits, const char *comparison, const char *value, char **settings) {
  crlib_conf_t *conf = api->create_conf();
  unsigned char bitmap[64], found[64];
  size_t size = 0;
  for (; bits[2 * size] != 0; size++) bitmap[size] = (unsigned char)strtoul((const char[]){bits[2 * size], bits[2 * size + 1], 0}, NULL, 16);
  configure_all(conf, settings);
  REQUIRE(api->configure(conf, "image_location", directory));
  char name[64] = "cpu.arch";
  const char *const equals = strchr(label, '=');
  if (equals != NULL) snprintf(name, sizeof name, "%.*s", (int)(equals - label), label);
  REQUIRE(constraints->require_label(conf, name, "wrong") && constraints->require_label(conf, name, equals == NULL ? label : equals + 1) && constraints->require_bitmap(conf, "cpu.features", bitmap, size, (crlib_bitmap_comparison_t)atoi(comparison)));
  const int data = atoi(value);
  REQUIRE(restore_data->set_restore_data(conf, "xxxxxxxx", 8) && restore_data->set_restore_data(conf, &data, data == 0 ? 0 : sizeof data));
  fflush(stdout);
  int result = api->restore(conf);
  memset(found, 0xee, sizeof found);
  const size_t had = constraints->get_failed_bitmap(conf, "cpu.features", found, 1);
  REQUIRE((had == 0 ? found[0] == 0xee : found[0] == 0x0f) && found[1] == 0xee);
  printf("restore failed: %s, label %d, bitmap %d of %zu bytes\n", result == 0 ? "with 0" : "not 0", constraints->is_failed(conf, name), constraints->is_failed(conf, "cpu.features"),
         constraints->get_failed_bitmap(conf, "cpu.features", found, sizeof found));
  return 4;
}

int main(int argc, char **argv) {
  REQUIRE(argc >= 3);
  load(argv[1]);
  if (strcmp(argv[2], "interface") == 0) return show_interface();
  if (strcmp(argv[2], "checkpoint") == 0 && argc >= 4) return take_checkpoint(argv[3], argv + 4);
  if (strcmp(argv[2], "restore") == 0 && argc >= 8) return restore(argv[3], argv[4], argv[5], argv[6], argv[7], argv + 8);
  REQUIRE(!"arguments");
}
