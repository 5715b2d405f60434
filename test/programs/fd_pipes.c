/* Pipes within the process: data in them, packet mode, non-blocking, full, closed ends, capacity, and a FIFO. */
#include "check.h"

static int with_data[2], packets[2], full[2], no_writer[2], no_reader[2], fifo_read, fifo_write, large[2];
static size_t full_size;

static void arm(void) {
  CHECK(write(with_data[1], "queued in the pipe", 18) == 18);
  CHECK(write(packets[1], "first", 5) == 5 && write(packets[1], "second one", 10) == 10);
  CHECK(write(fifo_write, "in the fifo", 11) == 11);
}

static void set_up(void) {
  struct sigaction ignore = {.sa_handler = SIG_IGN};
  SYS(sigaction(SIGPIPE, &ignore, NULL));
  SYS(pipe2(with_data, O_CLOEXEC));
  SYS(pipe2(packets, O_DIRECT | O_NONBLOCK));
  SYS(pipe2(full, O_NONBLOCK));
  char block[4096];
  memset(block, 'f', sizeof block);
  ssize_t n;
  while ((n = write(full[1], block, sizeof block)) > 0) full_size += n;
  CHECK(errno == EAGAIN);
  SYS(pipe(no_writer));
  CHECK(write(no_writer[1], "last words", 10) == 10);
  SYS(close(no_writer[1]));
  SYS(pipe(no_reader));
  SYS(close(no_reader[0]));
  SYS(pipe(large));
  SYS(fcntl(large[1], F_SETPIPE_SZ, 1 << 20));
  for (int i = 0; i < 128; i++) CHECK(write(large[1], block, sizeof block) == sizeof block);
  unlink(scratch_path("fifo"));
  SYS(mkfifo(scratch_path("fifo"), 0600));
  fifo_read = SYS(open(scratch_path("fifo"), O_RDONLY | O_NONBLOCK));
  fifo_write = SYS(open(scratch_path("fifo"), O_WRONLY | O_CLOEXEC));
  arm();
}

static int pending(int fd) {
  int bytes = 0;
  SYS(syscall(SYS_ioctl, fd, 0x541b /* FIONREAD */, &bytes));
  return bytes;
}

static void verify(void) {
  struct stat st;
  SYS(fstat(with_data[0], &st));
  CHECK(S_ISFIFO(st.st_mode), "the pipe became something else, mode 0%o", st.st_mode);
  CHECK(pending(with_data[0]) == 18, "%d bytes in the pipe", pending(with_data[0]));
  CHECK(pending(full[0]) == (int)full_size && pending(no_writer[0]) == 10 && pending(fifo_read) == 11);
  CHECK(SYS(fcntl(large[0], F_GETPIPE_SZ)) == 1 << 20 && pending(large[0]) == 128 * 4096, "capacity %d, %d bytes",
        fcntl(large[0], F_GETPIPE_SZ), pending(large[0]));
  CHECK(SYS(fcntl(packets[1], F_GETFL)) == (O_WRONLY | O_DIRECT | O_NONBLOCK), "flags 0%o", fcntl(packets[1], F_GETFL));
  CHECK(SYS(fcntl(full[0], F_GETFL)) == O_NONBLOCK && SYS(fcntl(with_data[0], F_GETFL)) == 0);
  CHECK(SYS(fcntl(with_data[0], F_GETFD)) == FD_CLOEXEC && SYS(fcntl(full[0], F_GETFD)) == 0);
}

static void after_restore(void) {
  char buffer[8192];
  verify();
  CHECK(read(with_data[0], buffer, sizeof buffer) == 18 && !memcmp(buffer, "queued in the pipe", 18));
  CHECK(read(packets[0], buffer, sizeof buffer) == 5 && !memcmp(buffer, "first", 5), "packet boundaries lost");
  CHECK(read(packets[0], buffer, sizeof buffer) == 10 && !memcmp(buffer, "second one", 10), "packet boundaries lost");
  CHECK(read(packets[0], buffer, 1) == -1 && errno == EAGAIN);
  CHECK(write(full[1], "x", 1) == -1 && errno == EAGAIN, "the full pipe is not full");
  CHECK(read(full[0], buffer, 8192) == 8192);
  memset(buffer, 'f', sizeof buffer);
  CHECK(write(full[1], buffer, 8192) == 8192);
  CHECK(write(no_reader[1], "x", 1) == -1 && errno == EPIPE, "a pipe with no reader took data");
  CHECK(read(no_writer[0], buffer, 3) == 3 && !memcmp(buffer, "las", 3));
  CHECK(read(no_writer[0], buffer, 100) == 7);
  CHECK(read(no_writer[0], buffer, 1) == 0, "no end of file at a pipe with no writer");
  SYS(close(no_writer[0]));
  SYS(pipe(no_writer));
  CHECK(write(no_writer[1], "last words", 10) == 10);
  SYS(close(no_writer[1]));
  CHECK(read(fifo_read, buffer, sizeof buffer) == 11 && !memcmp(buffer, "in the fifo", 11));
  CHECK(write(with_data[1], "abc", 3) == 3 && read(with_data[0], buffer, 8) == 3);
  arm();
}
