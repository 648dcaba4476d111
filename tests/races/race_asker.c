/* race_asker: a process that asks all the time through pepcore.h, which keeps answers under the daemon's page, and
 * writes down every permit that it got, as race_asker.py does: `race_asker SOCKET OUT KIND SEED QUESTION...`.
 *
 * KIND is `c`, or `c-settled` (the first question only, so that it meets a new daemon no earlier than that question is
 * asked anew). A QUESTION is `subject|action|resource|chain member|...`; its place is its number in the log. It stops
 * when its standard input ends, which it does with whoever started it; a line `fork` there makes it fork in the middle
 * of its work.
 *
 * Promises: the clock is read before a question and after its answer, so that no interval is shorter than it was; what
 * is written is what race_record.py reads (64 bytes a record, little-endian). What cannot be written is a failed exit.
 * Never: looks into the table that it tests, but for whether an answer came from it.
 */
#define PEPCORE_IMPLEMENTATION
#include "pepcore.h"

#include <sys/wait.h>

#define DEADLINE_MS 1000
#define WINDOW_NS 10000000u /* equal answers are one record for so long (race_record.WINDOW_NS) */
#define RECORD 64
#define FORKED_NS 400000000u
#define MOST 64

/* Permits of one decision for one question, of which nothing has been written yet. */
typedef struct open_record_st {
  uint32_t times;
  uint64_t boot, number, revision, first_start, last_start, first_end, last_end;
} open_record;

static struct {
  unsigned long checks, permits, kept, cached, anew, denies, faults, inherited, forks;
} counts;

static pep_client client;
static pep_request requests[MOST];
static open_record records[MOST][2]; /* by question, and whether the table of this process answered */
static uint8_t *written;
static size_t written_len, written_cap;
static size_t num;
static uint64_t seed;
static char last_fault[61];

static void fail(const char *why) {
  fprintf(stderr, "race_asker: %s\n", why);
  _exit(1);
}

/* xorshift64*: which question comes next, and for how long. */
static uint64_t below(uint64_t bound) {
  seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
  return (seed * 0x2545f4914f6cdd1du >> 33) % bound;
}

static void nap(uint64_t most_ns) {
  struct timespec t = {0, (long)below(most_ns)};
  nanosleep(&t, NULL);
}

static void put_record(size_t question, int local) {
  open_record *r = &records[question][local];
  const uint64_t words[] = {r->boot,       r->number,    r->revision, r->first_start,
                            r->last_start, r->first_end, r->last_end};
  uint8_t *to;
  if (!r->times) return;
  if (written_cap - written_len < RECORD) {
    written_cap = written_cap ? written_cap * 2 : 1 << 20;
    written = (uint8_t *)realloc(written, written_cap);
    if (!written) fail("no memory for the log");
  }
  to = written + written_len;
  to[0] = 1;
  to[1] = (uint8_t)local;
  pep_i_put_le(to + 2, question, 2);
  pep_i_put_le(to + 4, r->times, 4);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) pep_i_put_le(to + 8 + 8 * i, words[i], 8);
  written_len += RECORD;
  r->times = 0;
}

static void put_permit(size_t question, int local, const pep_verdict *v, uint64_t start, uint64_t end) {
  open_record *r = &records[question][local];
  if (r->times && r->number == v->id && r->boot == v->boot && r->revision == v->revision &&
      start - r->first_start < WINDOW_NS) {
    r->last_start = start;
    r->last_end = end;
    r->times++;
    return;
  }
  put_record(question, local);
  r->times = 1;
  r->boot = v->boot;
  r->number = v->id;
  r->revision = v->revision;
  r->first_start = r->last_start = start;
  r->first_end = r->last_end = end;
}

/* Asks once. Returns whether the table of this process answered. */
static int ask(size_t question) {
  pep_verdict v;
  uint64_t start = pep_i_clock_ns(CLOCK_MONOTONIC);
  int permit = pep_check(&client, &v, &requests[question], DEADLINE_MS);
  uint64_t end = pep_i_clock_ns(CLOCK_MONOTONIC);
  int local = v.cached && !client.in_used; /* a reply over the socket has been used up */
  counts.checks++;
  if (permit) {
    counts.permits++;
    *(!v.cached ? &counts.anew : local ? &counts.kept : &counts.cached) += 1;
    put_permit(question, local, &v, start, end);
  } else if (v.fault) {
    counts.faults++;
    snprintf(last_fault, sizeof last_fault, "%.60s", v.error);
    for (char *c = last_fault; *c; c++) /* it goes into JSON as it is */
      if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\') *c = '?';
  } else {
    counts.denies++;
  }
  return local;
}

static void put_file(const char *out, const char *kind, const void *data, size_t len) {
  char name[4096];
  if (snprintf(name, sizeof name, "%s%s", out, kind) >= (int)sizeof name) fail("the name of the log is too long");
  FILE *f = fopen(name, "wb");
  if (!f || (len && fwrite(data, 1, len, f) != len) || fclose(f)) fail("the log cannot be written");
}

static void put_all(const char *out) {
  char text[1024];
  for (size_t i = 0; i < num; i++) put_record(i, 0), put_record(i, 1);
  put_file(out, ".permits", written, written_len);
  int len = snprintf(text, sizeof text,
                     "{\"checks in C\": %lu, \"permits in C\": %lu, \"in process in C\": %lu,"
                     " \"from the daemon's cache in C\": %lu, \"asked anew in C\": %lu, \"denies in C\": %lu,"
                     " \"faults in C\": %lu, \"fault in C: %s\": %lu, \"inherited\": %lu, \"forks\": %lu}",
                     counts.checks, counts.permits, counts.kept, counts.cached, counts.anew, counts.denies,
                     counts.faults, last_fault, counts.faults, counts.inherited, counts.forks);
  put_file(out, ".counts", text, (size_t)len);
}

static void some(int settled) {
  size_t question = settled ? 0 : below(num);
  for (uint64_t left = 1 + below(39); left; left--)
    if (!ask(question) && !below(5)) nap(2000000); /* the other processes get on */
}

/* A child goes on with the same client. It may get nothing from the table before it has asked for it itself. */
static void fork_off(const char *out, int settled) {
  char name[4096];
  counts.forks++;
  pid_t child = fork();
  if (child < 0) fail("no process can be forked");
  if (child) return;
  if (snprintf(name, sizeof name, "%s.%lu", out, counts.forks) >= (int)sizeof name) fail("the name is too long");
  memset(&counts, 0, sizeof counts); /* the parent's are counted by itself, as is what it has logged */
  memset(records, 0, sizeof records);
  written_len = 0;
  seed ^= (uint64_t)getpid() << 32;
  for (size_t i = 0; i < num; i++) counts.inherited += (unsigned long)ask(i);
  for (uint64_t until = pep_i_now_ns() + FORKED_NS; pep_i_now_ns() < until;) some(settled);
  put_all(name);
  _exit(0);
}

/* What has come on standard input: -1: its end, else how many forks are wanted. */
static int wanted(void) {
  char data[256];
  struct pollfd p = {0, POLLIN, 0};
  int lines = 0;
  if (poll(&p, 1, 0) < 1) return 0;
  ssize_t n = read(0, data, sizeof data);
  if (n <= 0) return -1;
  for (ssize_t i = 0; i < n; i++) lines += data[i] == '\n';
  return lines;
}

/* Adds a question: the words between `|`. */
static void add(char *text) {
  char *words[4 + PEP_MAX_CHAIN] = {NULL};
  size_t n = 0;
  for (char *word = strtok(text, "|"); word; word = strtok(NULL, "|")) {
    if (n == sizeof words / sizeof *words) fail("a question has too long a chain");
    words[n++] = word;
  }
  if (n < 3 || num == MOST) fail("a question has subject, action and resource, and there are at most 64");
  pep_request_ask(&requests[num], words[0], words[1], words[2]);
  for (size_t i = 3; i < n; i++) pep_request_on_behalf_of(&requests[num], words[i]);
  if (!pep_request_seal(&requests[num])) fail(requests[num].error);
  num++;
}

int main(int argc, char **argv) {
  int settled, forks, status;
  if (argc < 6) fail("usage: race_asker SOCKET OUT KIND SEED QUESTION...");
  settled = !strcmp(argv[3], "c-settled");
  if (!settled && strcmp(argv[3], "c")) fail("a kind is `c` or `c-settled`");
  seed = (strtoull(argv[4], NULL, 10) + 1) * 0x9e3779b97f4a7c15u;
  for (int i = 5; i < argc; i++) add(argv[i]);
  if (!pep_connect(&client, argv[1], NULL, NULL, 0) || !pep_client_keep(&client, 0)) fail(client.error);
  while ((forks = wanted()) >= 0) {
    while (forks--) fork_off(argv[2], settled);
    some(settled);
  }
  for (unsigned long left = counts.forks; left; left--)
    if (wait(&status) < 0 || status) fail("a child has failed");
  put_all(argv[2]);
  return 0;
}
