/*
 * warp: checkpoint and restore for Linux processes, from inside the program.
 *
 * Link with -lwarp (libwarp.so), or run the program with it preloaded and declare these functions weak: they are there only
 * then. All functions are thread-safe; none changes errno.
 */
#ifndef WARP_H
#define WARP_H

#ifdef __cplusplus
extern "C" {
#endif

/* The process goes on after the checkpoint. Without it the process ends with SIGKILL once its image is durable. */
#define WARP_LEAVE_RUNNING 0x1u
/* Unchanged pages of mapped files are stored too: the image needs none of the files at restore. */
#define WARP_SELF_CONTAINED 0x2u

/* The content is compressed with LZ4 (level 1): such an image is smaller, and is read and decompressed at restore rather than mapped. */
#define WARP_COMPRESS_LZ4 0x4u

enum warp_result {
  WARP_FAILED = -1,      /* nothing was written, and the process goes on: see warp_error */
  WARP_LEFT_RUNNING = 0, /* the image is durable, and this is the process that was captured */
  WARP_RESTORED = 1,     /* this is a process that was restored from the image */
};

/*
 * Writes the whole state of the calling process to DIRECTORY/core.img. `directory` is made when it is missing (mode 0700); a relative
 * path counts from the working directory. An image that is there already is replaced once the new one is durable.
 * A program that was started with WARP_ENCRYPTION_KEY_FILE in its environment (`warp-tool run --encryption-key-file`) has it encrypted with the key that
 * this file holds then: the key is read for each checkpoint, and is in the program's memory only until the engine begins.
 * `flags`: any of WARP_LEAVE_RUNNING, WARP_SELF_CONTAINED and WARP_COMPRESS_LZ4. Other threads are stopped meanwhile.
 */
enum warp_result warp_checkpoint(const char *directory, unsigned flags);

/* Why the calling process's last warp_checkpoint failed: one line, valid until the next call; "" when it did not. */
const char *warp_error(void);

/* How many times the program has been restored in its life: 0 in a process that was started. */
unsigned warp_generation(void);

#ifdef __cplusplus
}
#endif

#endif
