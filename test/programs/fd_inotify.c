/* inotify: watches keep their descriptors and masks, and report what happens after the restore. */
#include "check.h"
#include <sys/inotify.h>

static int fd, directory_watch, file_watch, removed_watch;

static void set_up(void) {
  SYS(mkdir(scratch_path("watched"), 0700) && errno != EEXIST ? -1 : 0);
  close(SYS(open(scratch_path("watched-file"), O_WRONLY | O_CREAT, 0600)));
  fd = SYS(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  removed_watch = SYS(inotify_add_watch(fd, "/", IN_CREATE));
  directory_watch = SYS(inotify_add_watch(fd, scratch_path("watched"), IN_CREATE | IN_DELETE));
  file_watch = SYS(inotify_add_watch(fd, scratch_path("watched-file"), IN_MODIFY));
  SYS(inotify_rm_watch(fd, removed_watch)); /* descriptors then start at 2 */
  char buffer[4096];
  while (read(fd, buffer, sizeof buffer) > 0) {
  }
}

static void verify(void) { CHECK(SYS(fcntl(fd, F_GETFD)) == FD_CLOEXEC); }

static void expect(int watch, unsigned mask, const char *name) {
  union {
    struct inotify_event event;
    char bytes[4096];
  } buffer;
  ssize_t n = read(fd, &buffer, sizeof(struct inotify_event) + NAME_MAX + 1 < sizeof buffer ? sizeof buffer : 0);
  CHECK(n >= (ssize_t)sizeof(struct inotify_event), "no event: %zd, errno %d", n, errno);
  CHECK(buffer.event.wd == watch && buffer.event.mask == mask, "watch %d mask 0x%x, should be %d, 0x%x", buffer.event.wd, buffer.event.mask,
        watch, mask);
  if (name) CHECK(buffer.event.len && !strcmp(buffer.event.name, name));
}

static void after_restore(void) {
  char buffer[64];
  CHECK(read(fd, buffer, sizeof buffer) == -1 && errno == EAGAIN, "an event from nothing, errno %d", errno);
  SYS(unlink(scratch_path("watched/new")) && errno != ENOENT ? -1 : 0);
  char drain[4096];
  while (read(fd, drain, sizeof drain) > 0) {
  }
  close(SYS(open(scratch_path("watched/new"), O_WRONLY | O_CREAT | O_EXCL, 0600)));
  expect(directory_watch, IN_CREATE, "new");
  SYS(unlink(scratch_path("watched/new")));
  expect(directory_watch, IN_DELETE, "new");
  int file = SYS(open(scratch_path("watched-file"), O_WRONLY));
  CHECK(write(file, "x", 1) == 1);
  close(file);
  expect(file_watch, IN_MODIFY, NULL);
  int watch = SYS(inotify_add_watch(fd, scratch_path("watched-file"), IN_MODIFY));
  CHECK(watch == file_watch);
}
