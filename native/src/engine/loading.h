/*
 * Loading while the program runs. The restorer leaves part of the memory empty and lists it (struct warp_loading, control.h);
 * the engine fills it in image order, and first of all what a thread waits for. docs/engine.md tells how.
 */
#ifndef WARP_LOADING_H
#define WARP_LOADING_H

#include "engine.h"

/* ---- loading.c: what is there, and making it so ---- */

/* Before the threads of a restored process go on: guards what is absent. False: nothing is to be loaded. */
bool loading_begin(void);
/* In the helper thread, after the threads went on: starts the loaders, serves what they wait for until everything is there, then undoes all of it. */
void loading_run(void);
/* In a child that the thread `parent_tid` forked: it has all memory, and no loaders. */
void loading_forked(uint32_t parent_tid);
/* Returns when no byte of [address, address + size) is absent; that is at once when none was. Callable in a signal handler. */
void loading_ensure(uint64_t address, uint64_t size);
/* Returns when nothing is absent any more. */
void loading_ensure_all(void);
/* Index of the piece that holds `address`, WARP_NONE for none; and whether its content is there. */
uint32_t loading_piece_at(uint64_t address);
bool loading_piece_present(uint32_t piece);

/* ---- dispatch.c: the program's system calls and signals while memory is absent ---- */

/* Before the first thread goes on. `own_faults`: SIGSEGV, too, is the engine's (no userfaultfd). */
void dispatch_begin(bool own_faults);
/* For the calling thread, in its capture handler or at its start; `context` is the frame it leaves through, or NULL. */
void dispatch_arm_thread(struct ucontext *context);
/* Undoes everything in all threads; false when they could not be stopped: try again. */
bool dispatch_end(void);
/* In a forked child, which has all memory and none of the handlers' reasons. */
void dispatch_forked(uint32_t parent_tid);

#endif
