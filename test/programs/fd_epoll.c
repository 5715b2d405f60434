/*
 * epoll: the whole interest list (level, edge, one-shot and used-up one-shot, exclusive), data values, nested instances, and a watch on a
 * description whose first descriptor was closed.
 */
#include "check.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int outer, inner, level, edge, one_shot, used_up, pipe_fds[2], duplicate, in_inner;

/* The interest list as /proc/self/fdinfo shows it, without the columns that name the inode. */
static void interest_list(int fd, char *list, size_t size) {
  char path[64], text[8192];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  read_file(path, text, sizeof text);
  *list = 0;
  char lines[32][64];
  int count = 0;
  for (char *line = strstr(text, "tfd:"); line && count < 32; line = strstr(line + 1, "tfd:")) {
    int target;
    unsigned events;
    unsigned long long data;
    CHECK(sscanf(line, "tfd: %d events: %x data: %llx", &target, &events, &data) == 3);
    snprintf(lines[count++], 64, "%d %x %llx\n", target, events, data);
  }
  for (int n = 0; n < count; n++) { /* sorted: the kernel's order is by file address */
    int least = -1;
    for (int i = 0; i < count; i++)
      if (lines[i][0] && (least < 0 || strcmp(lines[i], lines[least]) < 0)) least = i;
    snprintf(list + strlen(list), size - strlen(list), "%s", lines[least]);
    lines[least][0] = 0;
  }
}

static void add(int instance, int fd, unsigned events, uint64_t data) {
  SYS(epoll_ctl(instance, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = events, .data.u64 = data}));
}

/* Collects ready events: true when exactly one with that data value is among them. */
static bool ready(int instance, uint64_t data, unsigned events) {
  struct epoll_event got[16];
  int n = SYS(epoll_wait(instance, got, 16, 0)), found = 0;
  for (int i = 0; i < n; i++) found += got[i].data.u64 == data && got[i].events == events;
  return found == 1;
}

static char outer_list[2048], inner_list[2048];

static void set_up(void) {
  outer = SYS(epoll_create1(EPOLL_CLOEXEC));
  inner = SYS(epoll_create1(0));
  level = SYS(eventfd(0, EFD_NONBLOCK));
  edge = SYS(eventfd(0, EFD_NONBLOCK));
  one_shot = SYS(eventfd(0, EFD_NONBLOCK));
  used_up = SYS(eventfd(1, EFD_NONBLOCK));
  in_inner = SYS(eventfd(0, EFD_NONBLOCK));
  SYS(pipe(pipe_fds));
  add(outer, level, EPOLLIN, 0x1111222233334444);
  add(outer, edge, EPOLLIN | EPOLLET, 0x5555);
  add(outer, one_shot, EPOLLIN | EPOLLONESHOT, ~0ull);
  add(outer, used_up, EPOLLIN | EPOLLONESHOT, 0x7777);
  CHECK(ready(outer, 0x7777, EPOLLIN)); /* from now on it is disabled */
  add(outer, inner, EPOLLIN, 0x8888);
  add(inner, in_inner, EPOLLIN | EPOLLEXCLUSIVE, 0x9999);
  add(outer, pipe_fds[0], EPOLLIN | EPOLLPRI, 0xaaaa);
  duplicate = SYS(dup(pipe_fds[0]));
  SYS(close(pipe_fds[0])); /* the watch lives on, under a number that is no longer open */
  interest_list(outer, outer_list, sizeof outer_list);
  interest_list(inner, inner_list, sizeof inner_list);
}

static void verify(void) {
  char list[2048];
  interest_list(outer, list, sizeof list);
  CHECK(!strcmp(list, outer_list), "interest list is\n%s, should be\n%s", list, outer_list);
  interest_list(inner, list, sizeof list);
  CHECK(!strcmp(list, inner_list), "interest list is\n%s, should be\n%s", list, inner_list);
}

static void after_restore(void) {
  eventfd_t value;
  struct epoll_event events[16];
  verify();
  CHECK(SYS(epoll_wait(outer, events, 16, 0)) == 0, "an event from nothing: data 0x%lx", (unsigned long)events[0].data.u64);
  eventfd_write(level, 1);
  CHECK(ready(outer, 0x1111222233334444, EPOLLIN) && ready(outer, 0x1111222233334444, EPOLLIN));
  eventfd_read(level, &value);
  eventfd_write(edge, 1);
  CHECK(ready(outer, 0x5555, EPOLLIN) && !ready(outer, 0x5555, EPOLLIN), "edge-triggered watch");
  eventfd_read(edge, &value);
  eventfd_write(one_shot, 1);
  CHECK(ready(outer, ~0ull, EPOLLIN) && !ready(outer, ~0ull, EPOLLIN), "one-shot watch");
  eventfd_read(one_shot, &value);
  SYS(epoll_ctl(outer, EPOLL_CTL_MOD, one_shot, &(struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = ~0ull}));
  eventfd_write(in_inner, 1);
  CHECK(ready(outer, 0x8888, EPOLLIN) && ready(inner, 0x9999, EPOLLIN), "nested instance");
  eventfd_read(in_inner, &value);
  CHECK(write(pipe_fds[1], "x", 1) == 1);
  CHECK(ready(outer, 0xaaaa, EPOLLIN), "watch whose first descriptor was closed");
  char byte;
  CHECK(read(duplicate, &byte, 1) == 1);
  CHECK(SYS(epoll_wait(outer, events, 16, 0)) == 0);
}
