/* load: the one load generator, for the daemon and for the bare echoes alike, so that a ratio compares only servers.
 *
 * Promises: a closed loop with one thread; `in-flight` requests on each connection at any time; one in flight on one
 * connection is a plain blocking write and read; elsewhere epoll, one write for all that a read made possible. Latency runs
 * from the write that carries a request to the read that completes its reply, in buckets of 0.1 %. Prints one JSON line.
 * In `check` mode every reply's op, length and id are checked and its verdict counted; in `echo` mode bytes are counted.
 * Never: opens the loop (latencies hide no queue but say nothing about arrival rates), retries, or sleeps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HEADER 24
#define SUB 10 /* bits of a latency that are kept: 2^-10 */
#define BUCKETS ((64 - SUB + 1) << SUB)
#define BUFFER (1 << 20)
#define STALL_NS 20000000000u

static const char usage[] =
    "usage: load --socket PATH --mode echo|check [options]\n"
    "  --keys FILE       check: requests, each a u32 length and a whole frame, sent in turn, their ids overwritten;\n"
    "                    if the first is a hello (op 1) it opens every connection and is not repeated\n"
    "  --request BYTES   echo: size of a request         --reply BYTES     echo: size of a reply\n"
    "  --connections N   default 1                       --in-flight N     per connection, default 1, at most 65535\n"
    "  --duration S      seconds, default 2              --count N         requests, instead of a duration\n"
    "  --warm N          requests before anything is measured\n"
    "  --unique OFFSET   write a 16-digit hex number, never the same twice, at this byte of every frame\n"
    "  --cdf FILE        write `nanoseconds fraction` lines\n"
    "  --interval S      write `progress FRACTION REQUESTS` lines to standard error\n";

typedef struct {
  uint64_t id, start_ns;
} flight;

typedef struct {
  int fd, writing;           /* writing: waiting for room to send `unsent` */
  uint32_t free_num, oldest; /* check: free slots; echo: the slot that is answered next */
  uint64_t next;
  flight *flights;
  uint16_t *free_slots;
  char *carry, *unsent; /* the start of a reply; the rest of a write */
  size_t carry_len, unsent_len, carry_cap;
} conn;

static const char *path, *keys_path, *cdf_path;
static int check_mode, mode_given;
static size_t connections = 1, in_flight = 1, request_len, reply_len, unique_at;
static double duration_s = 2, interval_s;
static uint64_t count, warm, unique_next;

static char **keys, *hello;
static size_t num_keys, key_at;
static char in[BUFFER], out[BUFFER];
static uint64_t histogram[BUCKETS], done, most_ns, permits, denies, faults, errors, cached, began_ns, last_ns;
static int warming;

static void fail(const char *what) {
  fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t u32(const char *at) {
  uint32_t v;
  memcpy(&v, at, 4);
  return v;
}

static uint64_t u64(const char *at) {
  uint64_t v;
  memcpy(&v, at, 8);
  return v;
}

static void *need(void *memory) {
  if (!memory) fail("no memory");
  return memory;
}

/* ---- latencies: exact below 2^SUB ns, then SUB bits behind the leading one ---- */

static size_t bucket(uint64_t ns) {
  int shift = ns >> SUB ? 63 - __builtin_clzll(ns) - SUB : -1;
  return shift < 0 ? (size_t)ns : ((size_t)(shift + 1) << SUB) + (size_t)((ns >> shift) - (1u << SUB));
}

static uint64_t bucket_ns(size_t b) {
  size_t shift = b >> SUB;
  return shift ? ((b & ((1u << SUB) - 1)) + (1u << SUB)) << (shift - 1) : b;
}

static void record(uint64_t start, uint64_t end) {
  uint64_t ns = end - start;
  histogram[bucket(ns)]++;
  if (ns > most_ns) most_ns = ns;
  if (++done == warm && warming) { /* from here on it counts */
    memset(histogram, 0, sizeof histogram);
    done = most_ns = permits = denies = faults = errors = cached = 0;
    warming = 0;
    began_ns = end;
  }
}

static uint64_t quantile(double q) {
  uint64_t want = (uint64_t)(q * (double)done), sum = 0;
  for (size_t b = 0; b < BUCKETS; b++)
    if ((sum += histogram[b]) > want) return bucket_ns(b);
  return most_ns;
}

/* Whether it is time to stop; also shows progress and notices a server that stands still. */
static int over(uint64_t now) {
  static uint64_t shown_ns;
  if (warming || now <= began_ns) return 0; /* `now` may be of before the reply that ended the warming */
  last_ns = now;
  double fraction = count ? (double)done / (double)count : (double)(now - began_ns) / 1e9 / duration_s;
  if (interval_s > 0 && now - shown_ns > (uint64_t)(interval_s * 1e9)) {
    shown_ns = now;
    fprintf(stderr, "progress %.3f %llu\n", fraction < 1 ? fraction : 1, (unsigned long long)done);
  }
  return fraction >= 1;
}

/* ---- requests and replies ---- */

static void read_keys(void) {
  struct stat st;
  int fd = open(keys_path, O_RDONLY);
  if (fd < 0 || fstat(fd, &st)) fail(keys_path);
  size_t size = (size_t)st.st_size, got = 0, room = 0;
  char *data = need(malloc(size + 1));
  for (ssize_t n; got < size; got += (size_t)n)
    if ((n = read(fd, data + got, size - got)) <= 0) fail(keys_path);
  close(fd);
  errno = 0;
  for (size_t at = 0; at < size;) {
    if (size - at < 4 + HEADER || u32(data + at) > size - at - 4 || u32(data + at) != HEADER + u32(data + at + 4))
      fail("the key file is cut, or a length in it is not that of its frame");
    if (!at && data[4 + 9] == 1) {
      hello = data + 4;
    } else {
      if (u32(data + at) < unique_at + 16 && unique_at) fail("--unique is outside a frame");
      if (num_keys == room) keys = need(realloc(keys, (room = room ? 2 * room : 1024) * sizeof *keys));
      keys[num_keys++] = data + at + 4;
    }
    at += 4 + u32(data + at);
  }
  if (!num_keys) fail("the key file holds no requests");
}

static size_t next_request(char *to, size_t room, conn *c, uint64_t now) {
  uint64_t slot = check_mode ? (c->free_num ? c->free_slots[c->free_num - 1] : in_flight) : c->next % in_flight;
  if (slot == in_flight || (!check_mode && c->next - c->oldest >= in_flight)) return 0;
  size_t len = request_len;
  uint64_t id = c->next << 16 | slot;
  if (check_mode) {
    const char *key = keys[key_at];
    len = HEADER + u32(key);
    if (len > room) return 0;
    memcpy(to, key, len);
    memcpy(to + 16, &id, 8);
    key_at = key_at + 1 == num_keys ? 0 : key_at + 1;
    c->free_num--;
    if (unique_at)
      for (uint64_t i = 0, v = unique_next++; i < 16; i++, v >>= 4) to[unique_at + 15 - i] = "0123456789abcdef"[v & 15];
  } else if (len > room) {
    return 0;
  }
  c->next++;
  c->flights[slot] = (flight){id, now};
  return len;
}

/* Takes the first reply of `len` bytes; returns its length, or 0 when it is not whole. */
static size_t take_reply(conn *c, const char *at, size_t len, uint64_t now) {
  if (!check_mode) {
    if (len < reply_len) return 0;
    if (c->oldest == (uint32_t)c->next) fail("the echo sent more than was asked for");
    record(c->flights[c->oldest++ % in_flight].start_ns, now);
    return reply_len;
  }
  if (len < HEADER) return 0;
  size_t whole = HEADER + (size_t)u32(at);
  uint64_t id = u64(at + 16), slot = id & 0xffff;
  unsigned op = (uint8_t)at[9];
  if (whole > BUFFER / 2 || at[8] != 1 || (op != 0x82 && op != 0xff)) fail("the server sent what is no reply to a check");
  if (len < whole) return 0;
  if (slot >= in_flight || c->flights[slot].id != id) fail("the server answered an id that was not asked");
  c->flights[slot].id = UINT64_MAX;
  c->free_slots[c->free_num++] = (uint16_t)slot;
  if (op == 0xff) errors++;
  else if (whole < HEADER + 40) fail("the server sent a verdict of less than 40 bytes");
  else {
    permits += at[HEADER] == 1;
    denies += at[HEADER] != 1;
    faults += at[HEADER + 1] != 0;
    cached += at[HEADER + 2] & 1;
  }
  record(c->flights[slot].start_ns, now);
  return whole;
}

static void write_all(int fd, const char *data, size_t len) {
  for (ssize_t n; len; data += n, len -= (size_t)n)
    if ((n = write(fd, data, len)) < 0) fail("write");
}

static size_t read_some(int fd, char *to, size_t room) {
  ssize_t n = read(fd, to, room);
  if (n == 0) errno = 0, fail("the server closed a connection");
  if (n < 0 && errno != EAGAIN && errno != EINTR) fail("read");
  return n < 0 ? 0 : (size_t)n;
}

static void open_conn(conn *c) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct timeval patience = {.tv_sec = 20};
  memset(c, 0, sizeof *c);
  if (strlen(path) >= sizeof address.sun_path) fail("the socket's path is too long");
  strcpy(address.sun_path, path);
  c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail(path);
  if (setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience)) fail("SO_RCVTIMEO");
  c->flights = need(calloc(in_flight, sizeof *c->flights));
  c->free_slots = need(calloc(in_flight, sizeof *c->free_slots));
  for (size_t i = 0; i < in_flight; i++) c->free_slots[c->free_num++] = (uint16_t)(in_flight - 1 - i);
  if (!hello) return;
  size_t have = 0;
  write_all(c->fd, hello, HEADER + u32(hello));
  while (have < HEADER || have < HEADER + (size_t)u32(in)) {
    size_t want = have < HEADER ? HEADER : HEADER + (size_t)u32(in), n;
    if (want > BUFFER || !(n = read_some(c->fd, in + have, want - have))) fail("no answer to the hello");
    have += n;
  }
  if ((uint8_t)in[9] != 0x81) errno = 0, fail("the server refused the hello");
}

static void run_blocking(conn *c) {
  for (uint64_t now = now_ns();;) {
    size_t len = next_request(out, BUFFER, c, now), have = 0;
    write_all(c->fd, out, len);
    do {
      size_t n = read_some(c->fd, in + have, BUFFER - have);
      if (!n) fail("no reply for 20 seconds");
      have += n;
      now = now_ns();
    } while (!(len = take_reply(c, in, have, now)));
    if (len != have) errno = 0, fail("the server sent more than one reply");
    if (over(now)) return;
  }
}

/* ---- many in flight ---- */

static void want(int epoll, int op, conn *c, int writing) {
  struct epoll_event e = {.events = writing ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
  c->writing = writing;
  if (epoll_ctl(epoll, op, c->fd, &e)) fail("epoll_ctl");
}

/* Sends all that may be in flight, in one write; what the socket does not take waits for room. */
static void refill(int epoll, conn *c, uint64_t now) {
  const char *from = c->unsent;
  size_t len = c->unsent_len;
  if (!len) {
    from = out;
    for (size_t n; (n = next_request(out + len, BUFFER - len, c, now)); len += n) {}
  }
  if (!len) return;
  ssize_t n = send(c->fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN && errno != EINTR) fail("send");
  size_t rest = len - (n > 0 ? (size_t)n : 0);
  if (rest) {
    if (!c->unsent) c->unsent = need(malloc(BUFFER));
    memmove(c->unsent, from + (len - rest), rest);
  }
  c->unsent_len = rest;
  if (c->writing != (rest > 0)) want(epoll, EPOLL_CTL_MOD, c, rest > 0);
}

static void receive(conn *c) {
  if (c->carry_len) memcpy(in, c->carry, c->carry_len);
  size_t got = read_some(c->fd, in + c->carry_len, BUFFER - c->carry_len), have = c->carry_len + got, at = 0, n;
  uint64_t now = now_ns();
  while ((n = take_reply(c, in + at, have - at, now))) at += n;
  if ((c->carry_len = have - at) > c->carry_cap) c->carry = need(realloc(c->carry, c->carry_cap = c->carry_len));
  if (c->carry_len) memcpy(c->carry, in + at, c->carry_len);
}

static void run_epoll(conn *all) {
  struct epoll_event events[256];
  int epoll = epoll_create1(0);
  if (epoll < 0) fail("epoll_create1");
  for (size_t i = 0; i < connections; i++) {
    if (fcntl(all[i].fd, F_SETFL, O_NONBLOCK)) fail("O_NONBLOCK");
    want(epoll, EPOLL_CTL_ADD, &all[i], 0);
  }
  for (size_t i = 0; i < connections; i++) refill(epoll, &all[i], now_ns());
  for (uint64_t seen = 0;;) {
    int n = epoll_wait(epoll, events, 256, 1000);
    if (n < 0 && errno != EINTR) fail("epoll_wait");
    uint64_t now = now_ns();
    for (int i = 0; i < n; i++) {
      conn *c = events[i].data.ptr;
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
      refill(epoll, c, now_ns());
    }
    if (n > 0) seen = now;
    else if (seen && now - seen > STALL_NS) errno = 0, fail("no reply for 20 seconds");
    if (over(now)) return;
  }
}

static void report(void) {
  double seconds = (double)(last_ns - began_ns) / 1e9;
  printf("{\"n\":%llu,\"seconds\":%.6f,\"rate\":%.1f", (unsigned long long)done, seconds, (double)done / seconds);
  static const double quantiles[] = {0.5, 0.9, 0.99, 0.999};
  static const char *const names[] = {"p50", "p90", "p99", "p99.9"};
  for (int i = 0; i < 4; i++) printf(",\"%s\":%llu", names[i], (unsigned long long)quantile(quantiles[i]));
  printf(",\"max\":%llu,\"permits\":%llu,\"denies\":%llu,\"faults\":%llu,\"errors\":%llu,\"cached\":%llu}\n",
         (unsigned long long)most_ns, (unsigned long long)permits, (unsigned long long)denies, (unsigned long long)faults,
         (unsigned long long)errors, (unsigned long long)cached);
  if (!cdf_path) return;
  FILE *f = fopen(cdf_path, "w");
  if (!f) fail(cdf_path);
  uint64_t sum = 0;
  for (size_t b = 0; b < BUCKETS; b++)
    if (histogram[b]) fprintf(f, "%llu %.9f\n", (unsigned long long)bucket_ns(b), (double)(sum += histogram[b]) / (double)done);
  if (fclose(f)) fail(cdf_path);
}

static void option(const char *name, const char *value) {
  if (!strcmp(name, "--socket")) path = value;
  else if (!strcmp(name, "--mode")) check_mode = !strcmp(value, "check"), mode_given = check_mode || !strcmp(value, "echo");
  else if (!strcmp(name, "--keys")) keys_path = value;
  else if (!strcmp(name, "--request")) request_len = strtoul(value, NULL, 10);
  else if (!strcmp(name, "--reply")) reply_len = strtoul(value, NULL, 10);
  else if (!strcmp(name, "--connections")) connections = strtoul(value, NULL, 10);
  else if (!strcmp(name, "--in-flight")) in_flight = strtoul(value, NULL, 10);
  else if (!strcmp(name, "--duration")) duration_s = strtod(value, NULL);
  else if (!strcmp(name, "--count")) count = strtoull(value, NULL, 10);
  else if (!strcmp(name, "--warm")) warm = strtoull(value, NULL, 10);
  else if (!strcmp(name, "--unique")) unique_at = strtoul(value, NULL, 10);
  else if (!strcmp(name, "--cdf")) cdf_path = value;
  else if (!strcmp(name, "--interval")) interval_s = strtod(value, NULL);
  else mode_given = -1;
}

int main(int argc, char **argv) {
  int i;
  for (i = 1; i + 1 < argc && mode_given >= 0; i += 2) option(argv[i], argv[i + 1]);
  if (i != argc || mode_given != 1 || !path || !connections || !in_flight || in_flight > 65535 || duration_s <= 0 ||
      (check_mode ? !keys_path : !request_len || !reply_len || request_len > BUFFER || reply_len > BUFFER / 2))
    return fputs(usage, stderr), 2;
  struct rlimit files;
  if (!getrlimit(RLIMIT_NOFILE, &files)) files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
  if (check_mode) read_keys();
  conn *all = need(calloc(connections, sizeof *all));
  for (size_t n = 0; n < connections; n++) open_conn(&all[n]);
  warming = warm > 0;
  unique_next = began_ns = now_ns();
  errno = 0;
  if (connections == 1 && in_flight == 1) run_blocking(&all[0]);
  else run_epoll(all);
  report();
  return 0;
}
