/* Interest lists: epoll and inotify. */
#ifndef WARP_WATCHES_H
#define WARP_WATCHES_H

#include "engine.h"

void capture_epoll(struct capture *capture, uint32_t fd, uint32_t description, const char *information);
int capture_inotify(struct capture *capture, uint32_t fd, uint32_t description, const char *information);

#endif
