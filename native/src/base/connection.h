/* The socket on which the engine inside a process takes commands. */
#ifndef WARP_CONNECTION_H
#define WARP_CONNECTION_H

#include <linux/un.h>

#include "base.h"

/* Where the engine of process `pid` listens, an id in that pid namespace (an inode number); returns the address's size. */
size_t engine_address(uint64_t pid_namespace, uint32_t pid, struct sockaddr_un *ret);
/* The namespace that a link like /proc/PID/ns/pid names, 0 when it cannot be read. */
uint64_t read_pid_namespace(const char *link);
/*
 * Connects to the engine in process `pid` and checks that it is that process which answers. Returns the descriptor, or with a line in `failure` a negated
 * errno: -ESRCH for no such process, -EPERM when another answers, and what connect(2) says when there is no engine.
 */
long engine_connect(uint32_t pid, struct failure *failure);

#endif
