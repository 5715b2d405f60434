/* What madvise and mlock set on memory areas, compared as the VmFlags and Locked lines of /proc/self/smaps. */
#include "check.h"
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#define SIZE (4 * PAGE)

static struct {
  const char *name;
  int advice;
  void *memory;
  char flags[128];
} areas[] = {
    {"plain", -1, NULL, ""},
    {"MADV_DONTDUMP", MADV_DONTDUMP, NULL, ""},
    {"MADV_DONTFORK", MADV_DONTFORK, NULL, ""},
    {"MADV_WIPEONFORK", MADV_WIPEONFORK, NULL, ""},
    {"MADV_MERGEABLE", MADV_MERGEABLE, NULL, ""},
    {"MADV_HUGEPAGE", MADV_HUGEPAGE, NULL, ""},
    {"MADV_NOHUGEPAGE", MADV_NOHUGEPAGE, NULL, ""},
    {"MADV_RANDOM", MADV_RANDOM, NULL, ""},
    {"MADV_SEQUENTIAL", MADV_SEQUENTIAL, NULL, ""},
    {"mlock", -2, NULL, ""},
    {"mlock2, on fault", -3, NULL, ""},
    {"MAP_NORESERVE", -4, NULL, ""},
};

/* The VmFlags of the area at memory, without those that the kernel sets by itself, and its locked kB. */
static void read_flags(void *memory, char *flags, size_t size) {
  static char text[1 << 20];
  read_file("/proc/self/smaps", text, sizeof text);
  char start[32];
  snprintf(start, sizeof start, "\n%lx-", (unsigned long)memory);
  char *area = strstr(text, start);
  CHECK(area, "no area at %p", memory);
  char *line = strstr(area, "\nVmFlags: ");
  CHECK(line);
  line += 10;
  char *end = strchr(line, '\n');
  *flags = 0;
  for (char *p = line; p + 2 <= end; p += 3)
    if (strncmp(p, "sd", 2) && strncmp(p, "um", 2) && strncmp(p, "uw", 2) && strncmp(p, "mt", 2))
      snprintf(flags + strlen(flags), size - strlen(flags), "%.2s ", p);
  char *locked = strstr(area, "\nLocked:");
  unsigned long kilobytes = locked ? strtoul(locked + 8, NULL, 10) : 0;
  snprintf(flags + strlen(flags), size - strlen(flags), "locked %lu", kilobytes);
}

static void set_up(void) {
  for (unsigned i = 0; i < COUNT(areas); i++) {
    /* a gap on both sides keeps areas apart */
    char *room = map_memory(SIZE + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | (areas[i].advice == -4 ? MAP_NORESERVE : 0);
    areas[i].memory = mmap(room + PAGE, SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
    CHECK(areas[i].memory == room + PAGE);
    if (areas[i].advice >= 0 && madvise(areas[i].memory, SIZE, areas[i].advice)) {
      CHECK(errno == EINVAL, "%s: errno %d", areas[i].name, errno); /* a kernel without it */
      areas[i].memory = NULL;
      continue;
    }
    if (areas[i].advice == -2) SYS(mlock(areas[i].memory, SIZE));
    if (areas[i].advice == -3) SYS(syscall(SYS_mlock2, areas[i].memory, SIZE, 1 /* MLOCK_ONFAULT */));
    fill(areas[i].memory, PAGE, i);
    read_flags(areas[i].memory, areas[i].flags, sizeof areas[i].flags);
  }
}

static void verify(void) {
  for (unsigned i = 0; i < COUNT(areas); i++)
    if (areas[i].memory) CHECK(is_filled(areas[i].memory, PAGE, i), "%s", areas[i].name);
}

static void after_restore(void) {
  for (unsigned i = 0; i < COUNT(areas); i++) {
    if (!areas[i].memory) continue;
    char flags[128];
    read_flags(areas[i].memory, flags, sizeof flags);
    CHECK(!strcmp(flags, areas[i].flags), "%s: flags \"%s\", should be \"%s\"", areas[i].name, flags, areas[i].flags);
  }
}
