/* Node.js: garbage is collected before a capture (javascript.c). */
#ifndef WARP_JAVASCRIPT_H
#define WARP_JAVASCRIPT_H

#include "engine.h"

/*
 * Before the threads are stopped: has every event loop of Node.js that waits collect garbage. The threads of these stand still until
 * javascript_go_on. A main thread that does not come to its event loop is not waited for: the capture does without.
 */
void javascript_collect_garbage(const struct request *request);
/* Lets the event loops go on; nothing where none stands still. `restored`: in a restored process, before its threads go on. */
void javascript_go_on(bool restored);
/* In a forked child, which has no thread but the one that forked. */
void javascript_forked(void);

#endif
