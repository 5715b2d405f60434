/* Java virtual machines: what their applications do before a checkpoint and after it (java.c). */
#ifndef WARP_JAVA_H
#define WARP_JAVA_H

#include "../../include/warp.h"
#include "engine.h"

/* How a checkpoint ended, for the application that goes on. */
enum java_outcome { JAVA_FAILED = WARP_FAILED, JAVA_LEFT_RUNNING = WARP_LEFT_RUNNING, JAVA_RESTORED = WARP_RESTORED };

/*
 * Has the application get ready, where this is a Java virtual machine with our agent. Fails when one of its resources throws (each is logged as an
 * error) or the request's time is over; the application goes on then.
 */
int java_before_checkpoint(const struct request *request, struct failure *failure);
/* Lets an application that is ready go on; nothing where none is. */
void java_go_on(enum java_outcome outcome);
/* In a restored process, before its threads go on; `old_pid` was its id at the capture. */
void java_restored(long old_pid);
/* After a pause, which stands for a capture and a restore in the same process; before its threads go on. */
void java_resumed(void);
/* In a forked child, which has no thread but the one that forked. */
void java_forked(void);

/* ---- java_heap.c ---- */
/* While the virtual machine starts. */
void java_heap_begin(void);
/* How many collections it takes until the collector counts as free what was garbage. */
int java_heap_collections(void);
/* At the end of a collector's pause: gives back the memory of the heap that no object lies in. */
void java_heap_release_unused(void);

#endif
