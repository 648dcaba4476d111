/* history: the C client inside the process of a test, so that it and the compiled table play one history over one page.
 *
 * Promises: nothing here waits, and no thread runs: `connect` gives the client one end of a pair whose other end holds the
 * welcome and the reply already, and what was asked is read from that end when the check is over.
 */
#define _GNU_SOURCE
#include <sys/socket.h>

static int to_pair(int fd);
#define connect(fd, address, len) to_pair(((void)(address), (void)(len), fd))
#define PEPCORE_IMPLEMENTATION
#include "pepcore.h"
#undef connect

enum { ASKED = 1, PERMIT = 2, CACHED = 4, FAULT = 8, CONNECTED = 16 };

static pep_client client;
static int daemon_end = -1, page_fd = -1, connected;
static pep_buffer welcome, reply;

static void say(const pep_buffer *data, int fd) {
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec from = {data->data, data->len};
  struct msghdr m = {.msg_iov = &from, .msg_iovlen = 1};
  if (fd >= 0) {
    m.msg_control = &control;
    m.msg_controllen = sizeof control;
    *CMSG_FIRSTHDR(&m) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof fd);
  }
  if (sendmsg(daemon_end, &m, MSG_DONTWAIT) != (ssize_t)data->len) abort();
}

static void say_reply(uint64_t id) {
  pep_i_put_le(reply.data + 16, id, 8);
  say(&reply, -1);
}

static int to_pair(int fd) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) || dup2(ends[0], fd) < 0) abort();
  close(ends[0]);
  daemon_end = ends[1];
  connected = 1;
  say(&welcome, page_fd);
  say_reply(2);
  return 0;
}

/* The connection is lost; the client has not noticed a thing but that. */
void hangup(void) {
  pep_i_close(&client);
  if (daemon_end >= 0) close(daemon_end);
  daemon_end = -1;
}

void end(void) {
  hangup();
  pep_client_cleanup(&client);
}

/* A new client that keeps answers. */
int begin(size_t slots) {
  end();
  return pep_connect(&client, "/nowhere", NULL, NULL, 0) && pep_client_keep(&client, slots);
}

/* What the next connection says: a whole frame, and the page. */
void serve(const uint8_t *frame, size_t len, int fd) {
  welcome.len = 0;
  if (!pep_append(&welcome, frame, len)) abort();
  page_fd = fd;
}

/* One check, for which the daemon would say this (a whole frame). */
int play(uint64_t *out_id, const char *subject, uint64_t not_after_ms, const uint8_t *frame, size_t len) {
  pep_request request = {0};
  pep_verdict v;
  uint8_t data[4096];
  reply.len = 0;
  connected = 0;
  if (!pep_append(&reply, frame, len) || !pep_request_ask(&request, subject, "read", "D::b")) abort();
  if (not_after_ms) pep_request_not_after(&request, not_after_ms);
  if (client.is_open) say_reply(client.next_id);
  int permit = pep_check(&client, &v, &request, 2000);
  int asked = daemon_end >= 0 && recv(daemon_end, data, sizeof data, MSG_DONTWAIT) > 0;
  if (!asked && client.is_open && recv(client.fd, data, sizeof data, MSG_DONTWAIT) != (ssize_t)reply.len) abort();
  *out_id = v.id;
  pep_request_cleanup(&request);
  return (asked ? ASKED : 0) | (permit ? PERMIT : 0) | (v.cached ? CACHED : 0) | (v.fault ? FAULT : 0) |
         (connected ? CONNECTED : 0);
}
