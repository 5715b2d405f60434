/* Sockets at a capture. Runs in a stopped thread of the program. */
#ifndef WARP_SOCKETS_H
#define WARP_SOCKETS_H

#include "engine.h"

/* Learns who is connected to whom among Unix sockets. */
int sockets_begin(struct capture *capture);
/* Adds the socket `fd`; `*detail` is its index. */
int capture_socket(struct capture *capture, int fd, uint64_t inode, const char *path, uint32_t *detail);
/* Pairs up sockets that are connected to each other. */
void sockets_end(struct capture *capture);
/* Refuses, or logs, what will be lost of a socket that is not the caller's. */
int check_socket(struct capture *capture, uint32_t fd, uint32_t index);

#endif
