/*
 * plain_write FILE BYTES: writes that many bytes from memory to a new file, one thread, 1 MiB a call, and makes it durable; removes it again.
 * Prints "write NS fsync NS cpu NS". This is what a capture is measured against.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
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

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const uint64_t size = strtoull(argv[2], NULL, 10), pages = (size + PAGE - 1) / PAGE;
  uint64_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return failed("mmap");
  for (uint64_t page = 0; page < pages; page++) fill_page(memory + page * WORDS, page);

  const int64_t begin = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
  int fd = open(argv[1], O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (fd < 0) return failed(argv[1]);
  for (uint64_t done = 0; done < size;) {
    ssize_t n = write(fd, (char *)memory + done, size - done < CALL ? size - done : CALL);
    if (n <= 0) {
      unlink(argv[1]);
      return failed("write");
    }
    done += (uint64_t)n;
  }
  const int64_t written = now(CLOCK_MONOTONIC);
  if (fsync(fd)) return failed("fsync");
  const int64_t durable = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  unlink(argv[1]);
  printf("write %ld fsync %ld cpu %ld\n", written - begin, durable - written, used);
}
