/*
 * pty COLUMNS ROWS PROGRAM [ARGUMENT…]: runs a program on a terminal of its own, as its session's leader.
 * stdin and stdout are the keyboard and the screen. Descriptor 3 takes lines `resize COLUMNS ROWS` and `signal NUMBER`
 * (for the terminal's foreground process group), and `hangup`; at the end it tells `lflag NUMBER`: the modes that the
 * program left. The exit status is the program's.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

static int master, slave;

static void write_all(int to, const char *bytes, ssize_t length) {
  while (length > 0) {
    ssize_t done = write(to, bytes, (size_t)length);
    if (done <= 0) exit(99);
    bytes += done;
    length -= done;
  }
}

/* Passes on what is there; 0 at the end. */
static int copy(int from, int to) {
  char buffer[65536];
  ssize_t length = read(from, buffer, sizeof buffer);
  if (length > 0) write_all(to, buffer, length);
  return length > 0;
}

static int control(void) {
  char line[256];
  ssize_t length = read(3, line, sizeof line - 1);
  if (length <= 0) return 0;
  line[length] = 0;
  unsigned short columns, rows;
  int number;
  pid_t group = tcgetpgrp(master);
  if (sscanf(line, "resize %hu %hu", &columns, &rows) == 2) {
    struct winsize size = {.ws_col = columns, .ws_row = rows};
    ioctl(master, TIOCSWINSZ, &size);
  } else if (sscanf(line, "signal %d", &number) == 1) {
    kill(-group, number);
  } else if (strncmp(line, "hangup", 6) == 0) {
    close(slave);
    close(master);
    master = slave = -1;
  }
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 4) return 98;
  struct winsize size = {.ws_col = (unsigned short)atoi(argv[1]), .ws_row = (unsigned short)atoi(argv[2])};
  if (openpty(&master, &slave, NULL, NULL, &size) != 0) return 97;
  pid_t child = fork();
  if (child == 0) {
    close(master);
    close(3);
    login_tty(slave);
    execvp(argv[3], argv + 3);
    _exit(127);
  }
  struct pollfd ready[] = {{0, POLLIN, 0}, {3, POLLIN, 0}, {master, POLLIN, 0}};
  int status;
  while (waitpid(child, &status, WNOHANG) == 0) {
    ready[2].fd = master;
    if (poll(ready, 3, 20) <= 0) continue;
    if (ready[0].revents != 0 && (master < 0 || !copy(0, master))) ready[0].fd = -1;
    if (ready[2].revents != 0 && master >= 0 && !copy(master, 1)) return 96;
    if (ready[1].revents != 0 && !control()) ready[1].fd = -1;
  }
  while (master >= 0 && poll(&ready[2], 1, 0) == 1 && copy(master, 1)) continue;
  struct termios modes;
  if (master >= 0 && tcgetattr(slave, &modes) == 0) dprintf(3, "lflag %u\n", modes.c_lflag);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
