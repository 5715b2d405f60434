#include <asm/ioctls.h>

#include "watches.h"

/* kcmp(2) KCMP_EPOLL_TFD: whether a descriptor is the file that an epoll instance watches under a number. */
#define KCMP_EPOLL_TFD_ 7
struct epoll_slot {
  uint32_t epoll_fd;
  uint32_t target_fd;
  uint32_t offset;
};

static bool is_watched(uint32_t epoll_fd, uint32_t watched_number, uint32_t fd) {
  const struct epoll_slot slot = {epoll_fd, watched_number, 0};
  long pid = sys(getpid), order = sys(kcmp, pid, pid, KCMP_EPOLL_TFD_, fd, &slot);
  return order == 0 || order == -EPERM || order == -ENOSYS; /* without kcmp the inode alone decides */
}

void capture_epoll(struct capture *capture, uint32_t fd, uint32_t description, const char *information) {
  /* "tfd: 5 events: 19 data: 5 pos:0 ino:61 sdev:c", fs/eventpoll.c */
  for (const char *at = information; (at = find_string(at, "tfd:")) != NULL;) {
    const char *events = find_string(at, "events:"), *data = find_string(at, "data:"), *inode_field = find_string(at, "ino:");
    if (events == NULL || data == NULL || inode_field == NULL) return;
    at += 4;
    while (*at == ' ') at++;
    struct warp_epoll_watch_record watch = {.description = description, .target = WARP_NONE};
    watch.fd = (uint32_t)parse_decimal(&at);
    events += 7;
    while (*events == ' ') events++;
    watch.events = (uint32_t)parse_hex(&events);
    data += 5;
    while (*data == ' ') data++;
    watch.data = parse_hex(&data);
    inode_field += 4;
    uint64_t inode = parse_hex(&inode_field);
    /* The number may have been closed or used again since; the watch belongs to the open file. */
    uint32_t elsewhere = WARP_NONE;
    for (size_t i = 0; i < capture->descriptors.records.count; i++) {
      const struct warp_descriptor_record *descriptor = table_at(&capture->descriptors, struct warp_descriptor_record, i);
      if (table_at(&capture->descriptions, struct warp_description_record, descriptor->description)->inode != inode) continue;
      if (!is_watched(fd, watch.fd, descriptor->number)) continue;
      if (descriptor->number == watch.fd) watch.target = descriptor->description;
      if (elsewhere == WARP_NONE) elsewhere = descriptor->description;
    }
    if (watch.target == WARP_NONE) watch.target = elsewhere;
    if (watch.target == WARP_NONE) {
      log_warn("descriptor %u (epoll) watches a file that the program has closed as descriptor %u: the watch is not kept", fd, watch.fd);
      continue;
    }
    struct warp_epoll_watch_record *record = table_add(&capture->epoll_watches);
    *record = watch;
  }
}

/*
 * The kernel tells a watch's inode but not its path, so the engine remembers the paths that programs watch: the C library's
 * inotify_add_watch is replaced by this one.
 */
#define REMEMBERED_PATHS 256
struct remembered_path {
  uint64_t device;
  uint64_t inode;
  char path[488];
};
static struct remembered_path *remembered;
static uint32_t remembered_next;

extern __attribute__((weak)) int *__errno_location(void);

static void remember(const char *path) {
  struct file_status status;
  if (sys(newfstatat, AT_FDCWD_, path, &status, 0) < 0) return;
  struct remembered_path *paths = __atomic_load_n(&remembered, __ATOMIC_ACQUIRE);
  if (paths == NULL) {
    long address = map_anonymous(0, REMEMBERED_PATHS * sizeof *paths, 3, 0);
    struct remembered_path *expected = NULL;
    if (address < 0) return;
    paths = (struct remembered_path *)address;
    if (!__atomic_compare_exchange_n(&remembered, &expected, paths, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
      sys(munmap, address, REMEMBERED_PATHS * sizeof *paths);
      paths = expected;
    }
  }
  for (uint32_t i = 0; i < REMEMBERED_PATHS; i++)
    if (paths[i].inode == status.inode && paths[i].device == status.device) return;
  struct remembered_path *slot = &paths[__atomic_fetch_add(&remembered_next, 1, __ATOMIC_RELAXED) % REMEMBERED_PATHS];
  char directory[4096];
  if (path[0] != '/' && read_link("/proc/self/cwd", directory, sizeof directory) > 0) {
    format(slot->path, sizeof slot->path, "%s/%s", directory, path);
  } else {
    format(slot->path, sizeof slot->path, "%s", path);
  }
  if (ends_with(slot->path, path) == false) return; /* too long to be remembered */
  slot->device = status.device;
  slot->inode = status.inode;
}

__attribute__((visibility("default"))) int inotify_add_watch(int fd, const char *path, uint32_t mask) {
  long result = sys(inotify_add_watch, fd, path, mask);
  if (result >= 0) {
    remember(path);
  } else if (__errno_location != NULL) {
    *__errno_location() = (int)-result;
  }
  return result < 0 ? -1 : (int)result;
}

int capture_inotify(struct capture *capture, uint32_t fd, uint32_t description, const char *information) {
  int32_t unread = 0;
  if (sys(ioctl, fd, FIONREAD, &unread) == 0 && unread > 0) log_info("descriptor %u (inotify): %d bytes of unread events are not kept", fd, unread);
  /* "inotify wd:3 ino:9e7e sdev:800013 mask:800afce …", fs/notify/fdinfo.c */
  for (const char *at = information; (at = find_string(at, "inotify wd:")) != NULL;) {
    struct warp_inotify_watch_record watch;
    fill_bytes(&watch, 0, sizeof watch);
    watch.description = description;
    at += 11;
    watch.watch = (uint32_t)parse_hex(&at);
    const char *inode = find_string(at, "ino:"), *device = find_string(at, "sdev:"), *mask = find_string(at, "mask:");
    if (inode == NULL || device == NULL || mask == NULL) break;
    inode += 4, device += 5, mask += 5;
    watch.inode = parse_hex(&inode);
    uint64_t number = parse_hex(&device); /* the kernel's own dev_t: 12 bits of major, 20 of minor */
    watch.device = device_number(number >> 20, number & 0xfffff);
    watch.mask = (uint32_t)parse_hex(&mask);
    const char *path = NULL;
    for (uint32_t i = 0; remembered != NULL && i < REMEMBERED_PATHS && path == NULL; i++)
      if (remembered[i].inode == watch.inode && remembered[i].device == watch.device) path = remembered[i].path;
    if (path == NULL) return fail(capture->failure, "descriptor %u (inotify) watches inode %lu, whose path is not known: have the program watch it through the C library's inotify_add_watch", fd, watch.inode);
    watch.path = table_string(&capture->inotify_watches, path);
    struct warp_inotify_watch_record *record = table_add(&capture->inotify_watches);
    *record = watch;
  }
  return 0;
}
