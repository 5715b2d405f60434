/* cached FILE [evict]: prints how many bytes of a file are in the page cache, having asked the kernel to drop them. Its owner may know (mincore(2)). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct stat status;
  const int fd = argc >= 2 ? open(argv[1], O_RDONLY) : -1;
  if (fd < 0 || fstat(fd, &status) != 0 || status.st_size == 0) return 2;
  if (argc == 3 && (strcmp(argv[2], "evict") != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)) return 2;
  const size_t size = (size_t)status.st_size, page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page;
  void *const memory = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
  unsigned char *const present = malloc(pages);
  if (memory == MAP_FAILED || present == NULL || mincore(memory, size, present) != 0) return 2;
  size_t count = 0;
  for (size_t i = 0; i < pages; i++) count += present[i] & 1;
  printf("%zu\n", count * page);
}
