/* echo: the floor that every figure is compared with. One thread, epoll, a Unix socket, no work.
 *
 *     echo --socket PATH --request R --reply S
 *
 * Promises: for every R bytes that came it sends S bytes, all replies of one read in one write, as the daemon does, and
 * like the daemon it reads no more from a peer that does not take its replies. Says `ready` when it listens; ends by signal.
 * Never: looks at a byte.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ (256 << 10)
#define REPLIES (1 << 20) /* bytes of replies that one write may carry */

typedef struct {
  int fd;
  size_t have;   /* bytes of a request that is not whole yet */
  size_t unsent; /* bytes of replies that are owed */
} peer;

static char in[READ], out[REPLIES];

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void watch(int epoll, int op, peer *p, uint32_t events) {
  struct epoll_event e = {.events = events, .data.ptr = p};
  if (epoll_ctl(epoll, op, p->fd, &e)) fail("epoll_ctl");
}

/* Sends what is owed; returns 0 when the peer is gone. */
static int settle(peer *p) {
  while (p->unsent) {
    ssize_t n = send(p->fd, out, p->unsent < REPLIES ? p->unsent : REPLIES, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    p->unsent -= (size_t)n;
  }
  return 1;
}

static void serve(int epoll, peer *p, uint32_t events, size_t request, size_t reply) {
  int owed = p->unsent > 0, alive = 1;
  if (!owed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
    ssize_t n = recv(p->fd, in, READ, MSG_DONTWAIT);
    if (n > 0) {
      p->have += (size_t)n;
      p->unsent = p->have / request * reply;
      p->have %= request;
    } else {
      alive = n < 0 && (errno == EAGAIN || errno == EINTR);
    }
  }
  if (!alive || !settle(p)) {
    close(p->fd);
    free(p);
  } else if (owed != (p->unsent > 0)) {
    watch(epoll, EPOLL_CTL_MOD, p, owed ? EPOLLIN : EPOLLOUT);
  }
}

int main(int argc, char **argv) {
  const char *path = NULL;
  size_t request = 0, reply = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--socket")) path = argv[i + 1];
    else if (!strcmp(argv[i], "--request")) request = strtoul(argv[i + 1], NULL, 10);
    else if (!strcmp(argv[i], "--reply")) reply = strtoul(argv[i + 1], NULL, 10);
  }
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (!path || strlen(path) >= sizeof address.sun_path || !request || !reply) {
    fprintf(stderr, "usage: echo --socket PATH --request BYTES --reply BYTES\n");
    return 2;
  }
  strcpy(address.sun_path, path);
  struct rlimit files;
  if (!getrlimit(RLIMIT_NOFILE, &files)) files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
  unlink(path);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
  if (listener < 0 || epoll < 0 || bind(listener, (struct sockaddr *)&address, sizeof address)) fail(path);
  if (listen(listener, 4096)) fail("listen");
  peer self = {.fd = listener};
  watch(epoll, EPOLL_CTL_ADD, &self, EPOLLIN);
  puts("ready");
  fflush(stdout);
  struct epoll_event events[256];
  for (;;) {
    int n = epoll_wait(epoll, events, 256, -1);
    if (n < 0 && errno != EINTR) fail("epoll_wait");
    for (int i = 0; i < n; i++) {
      peer *p = events[i].data.ptr;
      if (p != &self) {
        serve(epoll, p, events[i].events, request, reply);
        continue;
      }
      int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
      if (fd < 0) continue;
      if (!(p = calloc(1, sizeof *p))) fail("calloc");
      p->fd = fd;
      watch(epoll, EPOLL_CTL_ADD, p, EPOLLIN);
    }
  }
}
