/*
 * plain_write FILE: reads "prepare BYTES" or "write BYTES". `write` writes as many bytes from memory to a new file, one thread, 1 MiB a call,
 * makes it durable, answers "write NS fsync NS cpu NS" and removes it: this is what a capture is measured against. `prepare`, which is also
 * done before each `write`, leaves as much free memory that the kernel had in use just now: a virtual machine that returns free pages to its
 * host (free page reporting) needs up to ten times longer for others, and whoever comes second would seem the better one.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "noise.h"

enum { CALL = 1 << 20 };

static int64_t now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static int failed(const char *what) {
  perror(what);
  return 1;
}

static uint64_t *memory;
static uint64_t memory_pages;

/* Kept between writes: whether the kernel had to find fresh pages for it would disturb the file's. */
static int hold(uint64_t pages) {
  if (pages <= memory_pages) return 0;
  if (memory != NULL) munmap(memory, memory_pages * PAGE);
  memory_pages = pages + pages / 4;
  memory = mmap(NULL, memory_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return -1;
  for (uint64_t page = 0; page < memory_pages; page++) fill_page(memory + page * WORDS, page);
  return 0;
}

static int write_plain(const char *file, uint64_t size, int measured) {
  const int64_t begin = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
  int fd = open(file, O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (fd < 0) return failed(file);
  for (uint64_t done = 0; done < size;) {
    ssize_t n = write(fd, (char *)memory + done, size - done < CALL ? size - done : CALL);
    if (n <= 0) {
      unlink(file);
      return failed("write");
    }
    done += (uint64_t)n;
  }
  const int64_t written = now(CLOCK_MONOTONIC);
  if (measured && fsync(fd)) return failed("fsync");
  const int64_t durable = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  unlink(file);
  close(fd);
  if (measured) dprintf(1, "write %ld fsync %ld cpu %ld\n", written - begin, durable - written, used);
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  char command[16];
  uint64_t size;
  while (scanf("%15s %lu", command, &size) == 2) {
    if (hold((size + PAGE - 1) / PAGE)) return failed("mmap");
    if (write_plain(argv[1], size, 0)) return 1;
    if (strcmp(command, "write") != 0) dprintf(1, "prepared\n");
    else if (write_plain(argv[1], size, 1)) return 1;
  }
}
