/* pepcore.h: ask the policy enforcement core of this host, from C. One header, C11 (also C++), Linux, libc only.
 *
 * In exactly one file, before any other include:
 *
 *     #define PEPCORE_IMPLEMENTATION
 *     #include "pepcore.h"
 *
 * Promises: a permit comes out only when a daemon that this process may trust answered this very question with a
 * well-formed permit, within the deadline, and every obligation in it is one that the caller said it discharges.
 * Everything else (no daemon, a slow one, a malformed or hostile reply, no memory) is a deny that says why.
 * An answer is kept in this process only after `pep_client_keep`, and stands only while the daemon's page says so.
 * Never: raises a signal, prints, exits, allocates what a peer's length field asks for unchecked.
 * Not promised: that the world stands still between the answer and the action. Check late, act soon.
 *
 * Conventions (BoringSSL): context, outputs, inputs; outputs are named `out_`; 1 is success and 0 failure; every
 * struct may be zeroed (`= {0}`) and a zeroed one may always be cleaned up. Strings are UTF-8.
 * INVARIANT: one line in this file sets `permit` to 1.
 */
#ifndef PEPCORE_H
#define PEPCORE_H

#if defined(PEPCORE_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PEP_VERSION "0.1.0"
#define PEP_DEADLINE_MS 200 /* what a deadline of 0 means */
#define PEP_MAX_CHAIN 16
#define PEP_MAX_NAME 64    /* characters of a point or a handle */
#define PEP_MAX_HANDLES 64 /* each counted once */
#define PEP_MAX_DEPTH 16 /* of a question, its own array being 1 */
#ifndef PEP_MAX_FRAME
#define PEP_MAX_FRAME (1u << 20) /* bytes of a body, sent or received */
#endif
#define PEP_KEPT_SLOTS 1024          /* answers that a client keeps: what 0 slots mean */
#define PEP_MAX_KEPT_SLOTS (1u << 16)
#define PEP_MAX_KEPT 1536 /* bytes of a question and its verdict body together; longer ones are asked each time */

/* Why a verdict is a fault. Callers should not choose by code: any fault is a deny. */
enum {
  PEP_NO_FAULT = 0,
  PEP_BAD_FRAME = 1,
  PEP_BAD_QUESTION = 2,
  PEP_BAD_REQUEST = 3,
  PEP_REFUSED = 4,
  PEP_NOT_AVAILABLE = 5,
  PEP_OVERLOADED = 6,
  PEP_DEADLINE = 7,
  PEP_PDP = 8,
  PEP_OBLIGATION = 9,
  PEP_UNREACHABLE = 10,
  PEP_DRAINING = 11,
  PEP_STALE = 12,
  PEP_EXPIRED = 13
};

/* Where a name or a property belongs. The i-th member of the principal chain is PEP_CHAIN + i. */
enum { PEP_SUBJECT = 0, PEP_ACTION = 1, PEP_RESOURCE = 2, PEP_CONTEXT = 3, PEP_CHAIN = 4 };

typedef struct pep_buffer_st {
  uint8_t *data;
  size_t len, cap;
} pep_buffer;

typedef struct pep_request_st {
  pep_buffer scratch, members, frame;
  struct {
    size_t offset, len;
  } names[PEP_CHAIN + PEP_MAX_CHAIN];
  size_t num_chain, question_len;
  uint64_t not_after_ms, min_boot, min_revision;
  int has_not_after, has_min_revision, has_trace, failed, sealed;
  uint8_t trace[25];
  char error[256];
} pep_request;

typedef struct pep_client_st {
  pep_buffer hello, out, in;
  size_t handles_offset, in_used, frame_limit; /* bytes of a body that this connection's daemon takes; 0: not told */
  uint64_t next_id, boot;
  int fd, is_open, pid;
  char path[108], error[256];
  /* what pep_client_keep adds */
  struct pep_i_set_st *kept; /* NULL: no answer is kept */
  size_t num_sets;
  const uint64_t *page; /* the daemon's, mapped; NULL: there is none, and nothing in the table */
  uint64_t page_boot;
  uint64_t *counts; /* where the daemon fetches the hits of this client, mapped; NULL: it records none */
  uint64_t begun_ns, told_ns; /* our clock before the hello, and the daemon's in its reply */
  int64_t wall_ahead_ms; /* the wall clock minus CLOCK_BOOTTIME, as it was when the table was empty last */
  int awaits_page, is_offered, passed[2], num_held, num_passed; /* passed: descriptors of ours, num_held of them */
  int page_told;
  char page_error[160];
} pep_client;

/* A run of `num` msgpack values, already validated. Copy it to walk it. */
typedef struct pep_cursor_st {
  const uint8_t *data, *end;
  size_t num;
} pep_cursor;

typedef struct pep_string_st {
  const char *data; /* not terminated; may hold any character */
  size_t len;
} pep_string;

typedef struct pep_obligation_st {
  pep_string id, type;
  const uint8_t *properties; /* one canonical msgpack map */
  size_t properties_len;
} pep_obligation;

typedef struct pep_verdict_st {
  int permit, cached, fault; /* cached: the daemon had it, or this client kept it */
  uint32_t lifetime_ms;
  uint64_t id, boot, revision;
  pep_string reason;
  pep_cursor policies, obligations;
  char error[256]; /* empty unless `fault` */
} pep_verdict;

/* ---- Request: build a question. A call that fails leaves its text in `error` and fails the request for good, so
 * that results may be ignored until `pep_request_seal` or `pep_check`. ---- */

/* pep_request_ask names subject and resource (`"Type::id"`, split at the first `::`) and the action. */
int pep_request_ask(pep_request *request, const char *subject, const char *action, const char *resource);

/* pep_request_entity names the subject, the resource or (PEP_CHAIN, appended) a member of the chain, pep_request_action
 * the action. Use them for types that contain `::`, and for ids that come from elsewhere and may hold any character. */
int pep_request_action(pep_request *request, const char *name);
int pep_request_entity(pep_request *request, int place, const char *type, const char *id, size_t id_len);

/* pep_request_on_behalf_of appends `"Type::id"` to the principal chain, nearest principal first. */
int pep_request_on_behalf_of(pep_request *request, const char *entity);

/* pep_request_string, _int, _bool and _json add a property to PEP_SUBJECT, PEP_ACTION, PEP_RESOURCE, PEP_CHAIN + i, or
 * a field to PEP_CONTEXT. A key given twice fails the request. Never paste foreign text into `json`: that is what
 * _string is for. JSON is read strictly: no duplicate keys, NaN, lone surrogates or integers over 64 bits. */
int pep_request_string(pep_request *request, int place, const char *key, const char *value, size_t value_len);
int pep_request_int(pep_request *request, int place, const char *key, int64_t value);
int pep_request_bool(pep_request *request, int place, const char *key, int value);
int pep_request_json(pep_request *request, int place, const char *key, const char *json, size_t json_len);

/* pep_request_not_after sets when the caller's own token ends, in Unix milliseconds: later, the answer is a deny. */
void pep_request_not_after(pep_request *request, uint64_t unix_ms);

/* pep_request_min_revision demands an answer at least as new as one already seen. Another boot satisfies it. */
void pep_request_min_revision(pep_request *request, uint64_t boot, uint64_t revision);

/* pep_request_traceparent carries the caller's trace, as in the HTTP header of that name, to the daemon's record. It
 * never changes a decision: one that is malformed, or for which the frame has no room, is left out. */
void pep_request_traceparent(pep_request *request, const char *traceparent);

/* pep_request_seal sorts and encodes the question; nothing can be added afterwards. A sealed request may be checked any
 * number of times, by one thread at a time. `pep_check` seals by itself: call this to tell a mistake of the caller
 * from a deny. */
int pep_request_seal(pep_request *request);

void pep_request_cleanup(pep_request *request);

/* ---- Client ---- */

/* pep_connect says where and as what to ask; the socket is opened by the first `pep_check`, so that an absent daemon is
 * a deny like any other. `path` NULL or empty: PEPCORE_SOCKET, then $XDG_RUNTIME_DIR/pepcore/pepcore.sock if it exists,
 * then /run/pepcore/pepcore.sock. `point` may be NULL. `handles` are the obligation types that the caller discharges.
 * It fails, with text in `error`, only for arguments that can never work: a path over 107 bytes, a point over
 * PEP_MAX_NAME characters, a handle that is empty or as long, over PEP_MAX_HANDLES handles, invalid UTF-8. */
int pep_connect(pep_client *client, const char *path, const char *point, const char *const *handles,
                size_t num_handles);

/* pep_client_keep makes the client keep answers: `slots` of them (0: PEP_KEPT_SLOTS, most: PEP_MAX_KEPT_SLOTS), rounded
 * up to 8 times a power of two, of about 1.5 KiB each that are taken here, once, and that the kernel wipes in a forked
 * child. Call it after pep_connect and before the first check; not in a program that asks only once.
 * `pep_check` then answers the same question (byte for byte) without a system call, as long as the daemon allowed, and
 * while its page shows nothing revoked on which the answer hangs and was renewed within 100 ms; such a verdict is
 * `cached`. A wall clock that is set ends all that is kept. A request with a min_revision is asked each time, as is one
 * whose not_after has passed, and every one where no page can be used. It fails, with text in `error`, where memory
 * cannot be had or the client asked before. */
int pep_client_keep(pep_client *client, size_t slots);

/* pep_page_error returns why nothing is kept, the daemon's page being none that can be used, or NULL: each reason once,
 * for a log. Look after a `pep_check`. The text lives in `client` until the next call on it. */
const char *pep_page_error(pep_client *client);

/* pep_check asks and returns 1 only for a permit; `*out_verdict` is always set. Its strings and cursors live in `client`
 * until the next call on it. It keeps its connection, makes a new one when the daemon went away or the process
 * forked, and returns within `deadline_ms` (0: PEP_DEADLINE_MS) give or take the scheduler.
 * Guaranteed: a permit was decided for exactly this question, and is enforced as said at the top of this file.
 * Not guaranteed: that a deny means a policy said no; look at `fault` for that. One thread at a time per client. */
int pep_check(pep_client *client, pep_verdict *out_verdict, pep_request *request, uint32_t deadline_ms);

void pep_client_cleanup(pep_client *client);

/* ---- Verdict ---- */

/* pep_next_policy and pep_next_obligation take the next item of a copy of `verdict.policies` or `verdict.obligations`
 * and return 0 at its end. Every obligation whose type is in `handles` has to be discharged before the action, or the
 * action must not happen; `window`, `rate` and `notify` are shown, but were discharged by the daemon. */
int pep_next_policy(pep_cursor *cursor, pep_string *out_policy);
int pep_next_obligation(pep_cursor *cursor, pep_obligation *out_obligation);

/* pep_fault_name returns a word for a fault code, never NULL. */
const char *pep_fault_name(int fault);

/* pep_json appends one canonical msgpack value as JSON text; pep_json_string appends a quoted JSON string, in which
 * control characters are escaped and invalid UTF-8 becomes U+FFFD. Both are safe to show on a terminal. */
int pep_json(pep_buffer *buffer, const uint8_t *msgpack, size_t len);
int pep_json_string(pep_buffer *buffer, const char *text, size_t len);
int pep_append(pep_buffer *buffer, const void *data, size_t len);
void pep_buffer_cleanup(pep_buffer *buffer);

#ifdef __cplusplus
}
#endif
#endif /* PEPCORE_H */

#if defined(PEPCORE_IMPLEMENTATION) && !defined(PEPCORE_IMPLEMENTED)
#define PEPCORE_IMPLEMENTED

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "include pepcore.h before any other header where PEPCORE_IMPLEMENTATION is defined, or define _GNU_SOURCE"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define PEP_I_HEADER 24
#define PEP_I_OP_HELLO 1
#define PEP_I_OP_CHECK 2
#define PEP_I_REPLY 0x80
#define PEP_I_OP_ERROR 0xff
#define PEP_I_REPLY_DEPTH 32
#define PEP_I_PARTITION 1u /* the first hello of a connection makes partition 1 */

/* ---- Buffers: they grow only to a bound, and fail rather than pass it. ---- */

static int pep_i_reserve(pep_buffer *b, size_t more) {
  const size_t bound = (size_t)4 * PEP_MAX_FRAME;
  if (more > bound || b->len > bound - more) return 0;
  if (b->len + more <= b->cap) return 1;
  size_t cap = b->cap ? b->cap : 256;
  while (cap < b->len + more) cap *= 2;
  uint8_t *data = (uint8_t *)realloc(b->data, cap);
  if (!data) return 0;
  b->data = data;
  b->cap = cap;
  return 1;
}

int pep_append(pep_buffer *b, const void *data, size_t len) {
  if (!pep_i_reserve(b, len)) return 0;
  if (len) memcpy(b->data + b->len, data, len);
  b->len += len;
  return 1;
}

void pep_buffer_cleanup(pep_buffer *b) {
  free(b->data);
  memset(b, 0, sizeof *b);
}

static int pep_i_byte(pep_buffer *b, unsigned byte) {
  uint8_t one = (uint8_t)byte;
  return pep_append(b, &one, 1);
}

static void pep_i_put_le(uint8_t *to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t pep_i_get_le(const uint8_t *from, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; i++) value |= (uint64_t)from[i] << (8 * i);
  return value;
}

/* The length of the first UTF-8 character of `len` > 0 bytes, or 0 if it is not one (overlong, surrogate, cut). */
static size_t pep_i_utf8_char(const uint8_t *p, size_t len) {
  uint8_t a = p[0];
  if (a < 0x80) return 1;
  size_t n = a >= 0xf0 ? 4 : a >= 0xe0 ? 3 : 2;
  if (a < 0xc2 || a > 0xf4 || len < n) return 0;
  for (size_t i = 1; i < n; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  if ((a == 0xe0 && p[1] < 0xa0) || (a == 0xed && p[1] > 0x9f)) return 0;
  if ((a == 0xf0 && p[1] < 0x90) || (a == 0xf4 && p[1] > 0x8f)) return 0;
  return n;
}

static int pep_i_utf8(const void *data, size_t len) {
  const uint8_t *p = (const uint8_t *)data;
  for (size_t i = 0, n; i < len; i += n)
    if (!(n = pep_i_utf8_char(p + i, len - i))) return 0;
  return 1;
}

/* A text that was cut to its buffer must not end within a character. */
static void pep_i_trim(char *text) {
  size_t len = strlen(text), good = 0;
  for (size_t n; good < len && (n = pep_i_utf8_char((const uint8_t *)text + good, len - good)); good += n) {
  }
  if (len - good < 4) text[good] = 0;
}

/* ---- Writing canonical msgpack ---- */

/* Writes the shortest header for a str ('s'), array ('a') or map ('m') of `n`; returns its length, at most 5. */
static size_t pep_i_head(uint8_t *to, char kind, size_t n) {
  uint8_t fix = kind == 's' ? 0xa0 : kind == 'a' ? 0x90 : 0x80;
  uint8_t wide = kind == 's' ? 0xda : kind == 'a' ? 0xdc : 0xde;
  if (n < (kind == 's' ? 32u : 16u)) return to[0] = (uint8_t)(fix | n), 1;
  if (kind == 's' && n < 0x100) return to[0] = 0xd9, to[1] = (uint8_t)n, 2;
  if (n < 0x10000) return to[0] = wide, to[1] = (uint8_t)(n >> 8), to[2] = (uint8_t)n, 3;
  to[0] = (uint8_t)(wide + 1);
  for (int i = 0; i < 4; i++) to[1 + i] = (uint8_t)(n >> (24 - 8 * i));
  return 5;
}

static int pep_i_put_head(pep_buffer *b, char kind, size_t n) {
  uint8_t head[5];
  return pep_append(b, head, pep_i_head(head, kind, n));
}

static int pep_i_put_str(pep_buffer *b, const char *text, size_t len) {
  return pep_i_put_head(b, 's', len) && pep_append(b, text, len);
}

static int pep_i_put_be(pep_buffer *b, unsigned head, uint64_t value, int bytes) {
  uint8_t out[9] = {(uint8_t)head};
  for (int i = 0; i < bytes; i++) out[1 + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
  return pep_append(b, out, (size_t)bytes + 1);
}

static int pep_i_put_uint(pep_buffer *b, uint64_t v) {
  if (v < 0x80) return pep_i_byte(b, (unsigned)v);
  if (v < 0x100) return pep_i_put_be(b, 0xcc, v, 1);
  if (v < 0x10000) return pep_i_put_be(b, 0xcd, v, 2);
  return v <= 0xffffffffu ? pep_i_put_be(b, 0xce, v, 4) : pep_i_put_be(b, 0xcf, v, 8);
}

static int pep_i_put_int(pep_buffer *b, int64_t v) {
  if (v >= 0) return pep_i_put_uint(b, (uint64_t)v);
  if (v >= -32) return pep_i_byte(b, (unsigned)(v & 0xff));
  if (v >= INT8_MIN) return pep_i_put_be(b, 0xd0, (uint64_t)v, 1);
  if (v >= INT16_MIN) return pep_i_put_be(b, 0xd1, (uint64_t)v, 2);
  return v >= INT32_MIN ? pep_i_put_be(b, 0xd2, (uint64_t)v, 4) : pep_i_put_be(b, 0xd3, (uint64_t)v, 8);
}

/* A header was left 5 bytes of room at `start`: write the real one there and close the gap. */
static void pep_i_close_gap(pep_buffer *b, size_t start, char kind, size_t n) {
  size_t head = pep_i_head(b->data + start, kind, n);
  memmove(b->data + start + head, b->data + start + 5, b->len - start - 5);
  b->len -= 5 - head;
}

/* One member of a map that is still unsorted: where its encoded key and value lie in a buffer. */
typedef struct pep_i_member_st {
  size_t place, offset, key, key_len, len;
} pep_i_member;

static int pep_i_order(const void *left, const void *right, void *data) {
  const pep_i_member *a = (const pep_i_member *)left, *b = (const pep_i_member *)right;
  const uint8_t *base = (const uint8_t *)data;
  if (a->place != b->place) return a->place < b->place ? -1 : 1;
  size_t shorter = a->key_len < b->key_len ? a->key_len : b->key_len;
  int order = shorter ? memcmp(base + a->key, base + b->key, shorter) : 0;
  return order ? order : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

/* Sorts `num` members by place, then key; returns the first one that repeats its neighbour's key, or NULL. */
static const pep_i_member *pep_i_sort(pep_i_member *members, size_t num, uint8_t *base) {
  if (num > 1) qsort_r(members, num, sizeof *members, pep_i_order, base);
  for (size_t i = 1; i < num; i++)
    if (!pep_i_order(&members[i - 1], &members[i], base)) return &members[i];
  return NULL;
}

/* ---- Strict JSON to canonical msgpack ---- */

typedef struct pep_i_json_st {
  const char *text;
  size_t len, at;
  pep_buffer *out, stack; /* stack: the members of the objects that are still open */
  char error[128];
} pep_i_json;

static int pep_i_json_fail(pep_i_json *j, const char *why) {
  if (!j->error[0]) snprintf(j->error, sizeof j->error, "%s at character %zu", why, j->at + 1);
  return 0;
}

static int pep_i_peek(pep_i_json *j) { return j->at < j->len ? (unsigned char)j->text[j->at] : -1; }

static int pep_i_take(pep_i_json *j, char c) { return pep_i_peek(j) == c ? (j->at++, 1) : 0; }

static void pep_i_space(pep_i_json *j) {
  for (int c; (c = pep_i_peek(j)) == ' ' || c == '\t' || c == '\n' || c == '\r';) j->at++;
}

static int pep_i_hex4(pep_i_json *j, uint32_t *out_unit) {
  uint32_t unit = 0;
  for (int i = 0; i < 4; i++, j->at++) {
    int c = pep_i_peek(j), low = c | 0x20;
    if (c >= '0' && c <= '9') unit = unit << 4 | (uint32_t)(c - '0');
    else if (c > 0 && low >= 'a' && low <= 'f') unit = unit << 4 | (uint32_t)(low - 'a' + 10);
    else return pep_i_json_fail(j, "`\\u` needs four hex digits");
  }
  *out_unit = unit;
  return 1;
}

static int pep_i_json_escape(pep_i_json *j) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  int c = pep_i_peek(j);
  const char *simple = c > 0 ? strchr(from, c) : NULL;
  j->at++;
  if (simple) return pep_i_byte(j->out, (unsigned char)to[simple - from]) || pep_i_json_fail(j, "value is too large");
  if (c != 'u') return pep_i_json_fail(j, "unknown escape");
  uint32_t code, low;
  if (!pep_i_hex4(j, &code)) return 0;
  if (code >= 0xd800 && code < 0xe000) {
    if (code >= 0xdc00 || !pep_i_take(j, '\\') || !pep_i_take(j, 'u')) return pep_i_json_fail(j, "lone surrogate");
    if (!pep_i_hex4(j, &low)) return 0;
    if (low < 0xdc00 || low > 0xdfff) return pep_i_json_fail(j, "lone surrogate");
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  uint8_t u[4];
  size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (size_t i = n - 1; i > 0; i--, code >>= 6) u[i] = (uint8_t)(0x80 | (code & 0x3f));
  u[0] = (uint8_t)(lead[n] | code);
  return pep_append(j->out, u, n) || pep_i_json_fail(j, "value is too large");
}

static int pep_i_json_str(pep_i_json *j) {
  size_t start = j->out->len;
  if (!pep_i_take(j, '"')) return pep_i_json_fail(j, "expected a string in double quotes");
  if (!pep_append(j->out, "\0\0\0\0", 5)) return pep_i_json_fail(j, "value is too large");
  while (!pep_i_take(j, '"')) {
    int c = pep_i_peek(j);
    if (c < 0) return pep_i_json_fail(j, "string is not closed");
    if (c < 0x20) return pep_i_json_fail(j, "control character in a string");
    if (c == '\\') {
      j->at++;
      if (!pep_i_json_escape(j)) return 0;
      continue;
    }
    size_t n = pep_i_utf8_char((const uint8_t *)j->text + j->at, j->len - j->at);
    if (!n) return pep_i_json_fail(j, "invalid UTF-8");
    if (!pep_append(j->out, j->text + j->at, n)) return pep_i_json_fail(j, "value is too large");
    j->at += n;
  }
  pep_i_close_gap(j->out, start, 's', j->out->len - start - 5);
  return 1;
}

static size_t pep_i_digits(pep_i_json *j) {
  size_t from = j->at;
  for (int c; (c = pep_i_peek(j)) >= '0' && c <= '9';) j->at++;
  return j->at - from;
}

/* strtod and printf follow the locale of the host program; numbers here do not. */
static double pep_i_strtod(const char *text, char **out_end) {
  locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0), old = plain ? uselocale(plain) : plain;
  double value = strtod(text, out_end);
  if (plain) uselocale(old), freelocale(plain);
  return value;
}

/* Every digit counts, however many there are: another client that rounds the same literal must make the same bytes. */
static int pep_i_json_float_in(pep_i_json *j, const char *text, size_t len, double *out_value) {
  pep_buffer copy; /* strtod wants a NUL behind it */
  char *end = NULL;
  memset(&copy, 0, sizeof copy);
  int ok = pep_append(&copy, text, len) && pep_i_byte(&copy, 0);
  if (!ok) return pep_buffer_cleanup(&copy), pep_i_json_fail(j, "value is too large");
  *out_value = pep_i_strtod((const char *)copy.data, &end);
  ok = end == (char *)copy.data + len && isfinite(*out_value);
  pep_buffer_cleanup(&copy);
  return ok || pep_i_json_fail(j, "number does not fit a float64");
}

static int pep_i_json_number(pep_i_json *j) {
  size_t start = j->at;
  int negative = pep_i_take(j, '-'), whole = 1;
  if (!pep_i_take(j, '0') && !pep_i_digits(j)) return pep_i_json_fail(j, "expected a digit");
  if (pep_i_take(j, '.')) {
    whole = 0;
    if (!pep_i_digits(j)) return pep_i_json_fail(j, "expected a digit");
  }
  if (pep_i_take(j, 'e') || pep_i_take(j, 'E')) {
    whole = 0;
    if (!pep_i_take(j, '+')) (void)pep_i_take(j, '-');
    if (!pep_i_digits(j)) return pep_i_json_fail(j, "expected a digit");
  }
  const char *text = j->text + start;
  size_t len = j->at - start;
  if (whole) {
    uint64_t value = 0;
    for (size_t i = (size_t)negative; i < len; i++) {
      uint64_t digit = (uint64_t)(text[i] - '0');
      if (value > (UINT64_MAX - digit) / 10) return pep_i_json_fail(j, "integer does not fit 64 bits");
      value = value * 10 + digit;
    }
    if (negative && value > (uint64_t)1 << 63) return pep_i_json_fail(j, "integer does not fit 64 bits");
    int ok = !negative || !value ? pep_i_put_uint(j->out, value) : pep_i_put_int(j->out, (int64_t)(0 - value));
    return ok || pep_i_json_fail(j, "value is too large");
  }
  double value;
  if (!pep_i_json_float_in(j, text, len, &value)) return 0;
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return pep_i_put_be(j->out, 0xcb, bits, 8) || pep_i_json_fail(j, "value is too large");
}

static int pep_i_json_value(pep_i_json *j, int depth);

static int pep_i_json_array(pep_i_json *j, int depth) {
  size_t start = j->out->len, num = 0;
  if (!pep_append(j->out, "\0\0\0\0", 5)) return pep_i_json_fail(j, "value is too large");
  pep_i_space(j);
  if (!pep_i_take(j, ']')) {
    do {
      if (!pep_i_json_value(j, depth + 1)) return 0;
      num++;
    } while (pep_i_take(j, ','));
    if (!pep_i_take(j, ']')) return pep_i_json_fail(j, "expected `,` or `]`");
  }
  pep_i_close_gap(j->out, start, 'a', num);
  return 1;
}

static int pep_i_json_object(pep_i_json *j, int depth) {
  size_t start = j->out->len, bottom = j->stack.len;
  pep_i_space(j);
  if (!pep_i_take(j, '}')) {
    do {
      pep_i_space(j);
      pep_i_member m = {0, j->out->len, 0, 0, 0};
      if (!pep_i_json_str(j)) return 0;
      uint8_t head = j->out->data[m.offset];
      m.key = m.offset + (head < 0xc0 ? 1u : head == 0xd9 ? 2u : head == 0xda ? 3u : 5u);
      m.key_len = j->out->len - m.key;
      pep_i_space(j);
      if (!pep_i_take(j, ':')) return pep_i_json_fail(j, "expected `:`");
      if (!pep_i_json_value(j, depth + 1)) return 0;
      m.len = j->out->len - m.offset;
      if (!pep_append(&j->stack, &m, sizeof m)) return pep_i_json_fail(j, "value is too large");
    } while (pep_i_take(j, ','));
    if (!pep_i_take(j, '}')) return pep_i_json_fail(j, "expected `,` or `}`");
  }
  pep_i_member *members = j->stack.data ? (pep_i_member *)(void *)(j->stack.data + bottom) : NULL;
  size_t num = (j->stack.len - bottom) / sizeof *members, unsorted = j->out->len;
  if (num && pep_i_sort(members, num, j->out->data))
    return pep_i_json_fail(j, "duplicate key in the object that ends");
  /* the sorted copy is written behind the unsorted one, then moved over it */
  if (!pep_i_put_head(j->out, 'm', num) || !pep_i_reserve(j->out, unsorted - start))
    return pep_i_json_fail(j, "value is too large");
  for (size_t i = 0; i < num; i++) (void)pep_append(j->out, j->out->data + members[i].offset, members[i].len);
  memmove(j->out->data + start, j->out->data + unsorted, j->out->len - unsorted);
  j->out->len -= unsorted - start;
  j->stack.len = bottom;
  return 1;
}

static int pep_i_json_word(pep_i_json *j, const char *word, unsigned byte) {
  size_t len = strlen(word);
  if (j->len - j->at < len || memcmp(j->text + j->at, word, len)) return pep_i_json_fail(j, "not a JSON value");
  j->at += len;
  return pep_i_byte(j->out, byte) || pep_i_json_fail(j, "value is too large");
}

/* Reads one value with the space around it. `depth` is what a container here would count as. */
static int pep_i_json_value(pep_i_json *j, int depth) {
  int ok;
  pep_i_space(j);
  switch (pep_i_peek(j)) {
    case '{':
    case '[':
      if (depth > PEP_MAX_DEPTH) return pep_i_json_fail(j, "nested too deep");
      ok = j->text[j->at++] == '{' ? pep_i_json_object(j, depth) : pep_i_json_array(j, depth);
      break;
    case '"': ok = pep_i_json_str(j); break;
    case 't': ok = pep_i_json_word(j, "true", 0xc3); break;
    case 'f': ok = pep_i_json_word(j, "false", 0xc2); break;
    case 'n': ok = pep_i_json_word(j, "null", 0xc0); break;
    default:
      if (!pep_i_peek(j) || !strchr("-0123456789", pep_i_peek(j))) return pep_i_json_fail(j, "not a JSON value");
      ok = pep_i_json_number(j);
  }
  pep_i_space(j);
  return ok;
}

/* ---- Request ---- */

static int pep_i_request_fail(pep_request *r, const char *format, ...) {
  va_list args;
  va_start(args, format);
  if (!r->failed) vsnprintf(r->error, sizeof r->error, format, args);
  va_end(args);
  pep_i_trim(r->error);
  r->failed = 1;
  return 0;
}

static const char *pep_i_place(int place) {
  static const char *const names[] = {"subject", "action", "resource", "context"};
  return place >= PEP_SUBJECT && place < PEP_CHAIN ? names[place] : "on-behalf-of";
}

static int pep_i_name(pep_request *r, int place, const char *type, size_t type_len, const char *id, size_t id_len) {
  const char *where = pep_i_place(place);
  if (r->failed) return 0;
  if (r->sealed) return pep_i_request_fail(r, "the request is sealed: start a new one to name another %s", where);
  if (place == PEP_CHAIN && r->num_chain >= PEP_MAX_CHAIN)
    return pep_i_request_fail(r, "on-behalf-of has over %d members: shorten the chain", PEP_MAX_CHAIN);
  size_t slot = place == PEP_CHAIN ? PEP_CHAIN + r->num_chain : (size_t)place, offset = r->scratch.len;
  if (place == PEP_CONTEXT || place < 0 || place > PEP_CHAIN || r->names[slot].len)
    return pep_i_request_fail(r, "%s cannot be named here, or was named before", where);
  if (!type_len) return pep_i_request_fail(r, "%s is empty: name it", where);
  if (!pep_i_utf8(type, type_len) || !pep_i_utf8(id, id_len))
    return pep_i_request_fail(r, "%s is not valid UTF-8", where);
  if (!pep_i_put_str(&r->scratch, type, type_len) || (place != PEP_ACTION && !pep_i_put_str(&r->scratch, id, id_len)))
    return pep_i_request_fail(r, "%s is too long", where);
  r->names[slot].offset = offset;
  r->names[slot].len = r->scratch.len - offset;
  if (place == PEP_CHAIN) r->num_chain++;
  return 1;
}

static int pep_i_split(pep_request *r, int place, const char *entity) {
  const char *colons = entity ? strstr(entity, "::") : NULL;
  if (!colons || colons == entity)
    return pep_i_request_fail(r, "%s `%s` has no type: write it as `Type::id`", pep_i_place(place),
                              entity ? entity : "");
  return pep_i_name(r, place, entity, (size_t)(colons - entity), colons + 2, strlen(colons + 2));
}

int pep_request_ask(pep_request *r, const char *subject, const char *action, const char *resource) {
  return pep_i_split(r, PEP_SUBJECT, subject) && pep_request_action(r, action) &&
         pep_i_split(r, PEP_RESOURCE, resource);
}

int pep_request_action(pep_request *r, const char *name) {
  return pep_i_name(r, PEP_ACTION, name, name ? strlen(name) : 0, "", 0);
}

int pep_request_entity(pep_request *r, int place, const char *type, const char *id, size_t id_len) {
  if (place == PEP_ACTION) return pep_i_request_fail(r, "an action is no entity: use pep_request_action");
  return pep_i_name(r, place, type, strlen(type), id, id_len);
}

int pep_request_on_behalf_of(pep_request *r, const char *entity) { return pep_i_split(r, PEP_CHAIN, entity); }

/* Starts a member: its key. The caller then writes the value and calls pep_i_end. */
static int pep_i_begin(pep_request *r, pep_i_member *m, int place, const char *key) {
  size_t len = strlen(key);
  if (r->failed) return 0;
  if (r->sealed) return pep_i_request_fail(r, "the request is sealed: start a new one to add `%s`", key);
  if (place < 0 || place >= PEP_CHAIN + (int)r->num_chain)
    return pep_i_request_fail(r, "`%s` belongs to no member of the chain: name that first", key);
  if (!pep_i_utf8(key, len)) return pep_i_request_fail(r, "a key of %s is not valid UTF-8", pep_i_place(place));
  m->place = (size_t)place;
  m->offset = r->scratch.len;
  m->key_len = len;
  if (!pep_i_put_str(&r->scratch, key, len)) return pep_i_request_fail(r, "the question is too large");
  m->key = r->scratch.len - len;
  return 1;
}

static int pep_i_end(pep_request *r, pep_i_member *m, int written) {
  m->len = r->scratch.len - m->offset;
  if (!written || !pep_append(&r->members, m, sizeof *m)) return pep_i_request_fail(r, "the question is too large");
  return 1;
}

int pep_request_string(pep_request *r, int place, const char *key, const char *value, size_t value_len) {
  pep_i_member m;
  if (!pep_i_begin(r, &m, place, key)) return 0;
  if (!pep_i_utf8(value, value_len)) return pep_i_request_fail(r, "the value of `%s` is not valid UTF-8", key);
  return pep_i_end(r, &m, pep_i_put_str(&r->scratch, value, value_len));
}

int pep_request_int(pep_request *r, int place, const char *key, int64_t value) {
  pep_i_member m;
  return pep_i_begin(r, &m, place, key) && pep_i_end(r, &m, pep_i_put_int(&r->scratch, value));
}

int pep_request_bool(pep_request *r, int place, const char *key, int value) {
  pep_i_member m;
  return pep_i_begin(r, &m, place, key) && pep_i_end(r, &m, pep_i_byte(&r->scratch, value ? 0xc3 : 0xc2));
}

int pep_request_json(pep_request *r, int place, const char *key, const char *json, size_t json_len) {
  pep_i_member m;
  pep_i_json j;
  if (!pep_i_begin(r, &m, place, key)) return 0;
  memset(&j, 0, sizeof j);
  j.text = json;
  j.len = json_len;
  j.out = &r->scratch;
  /* a context is container 2 of a question, an entity's or action's properties 3, those in the chain 4 */
  int ok = pep_i_json_value(&j, place == PEP_CONTEXT ? 3 : place < PEP_CHAIN ? 4 : 5);
  if (ok && j.at < j.len) ok = pep_i_json_fail(&j, "something follows the value");
  pep_buffer_cleanup(&j.stack);
  if (!ok) return pep_i_request_fail(r, "the value of `%s` is not valid JSON: %s", key, j.error);
  return pep_i_end(r, &m, 1);
}

void pep_request_not_after(pep_request *r, uint64_t unix_ms) {
  r->has_not_after = 1;
  r->not_after_ms = unix_ms;
}

void pep_request_min_revision(pep_request *r, uint64_t boot, uint64_t revision) {
  r->has_min_revision = 1;
  r->min_boot = boot;
  r->min_revision = revision;
}

/* Reads `len` lower-case hexadecimal digits. True if they are that and, where `some` is set, not all zeros. */
static int pep_i_hex(uint8_t *out, const char *text, size_t len, int some) {
  int any = 0;
  for (size_t i = 0; i < len; i++) {
    char c = text[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return 0;
    any |= digit;
    out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] << 4 | digit : digit);
  }
  return any || !some;
}

void pep_request_traceparent(pep_request *r, const char *text) {
  r->has_trace = strlen(text) == 55 && !memcmp(text, "00-", 3) && text[35] == '-' && text[52] == '-' &&
                 pep_i_hex(r->trace, text + 3, 32, 1) && pep_i_hex(r->trace + 16, text + 36, 16, 1) &&
                 pep_i_hex(r->trace + 24, text + 53, 2, 0);
}

/* Writes the members of one place, which lie together after sorting, as a map; `*at` moves past them. */
static int pep_i_put_map(pep_request *r, size_t *at, size_t place) {
  const pep_i_member *members = (const pep_i_member *)(const void *)r->members.data;
  size_t num = r->members.len / sizeof *members, end = *at;
  while (end < num && members[end].place == place) end++;
  if (!pep_i_put_head(&r->frame, 'm', end - *at)) return 0;
  for (; *at < end; ++*at)
    if (!pep_append(&r->frame, r->scratch.data + members[*at].offset, members[*at].len)) return 0;
  return 1;
}

static int pep_i_put_named(pep_request *r, size_t *at, size_t place) {
  return pep_i_put_head(&r->frame, 'a', place == PEP_ACTION ? 2 : 3) &&
         pep_append(&r->frame, r->scratch.data + r->names[place].offset, r->names[place].len) &&
         pep_i_put_map(r, at, place);
}

int pep_request_seal(pep_request *r) {
  if (r->failed) return 0;
  if (r->sealed) return 1;
  for (int place = PEP_SUBJECT; place <= PEP_RESOURCE; place++)
    if (!r->names[place].len) return pep_i_request_fail(r, "%s is missing: name it", pep_i_place(place));
  pep_i_member *members = (pep_i_member *)(void *)r->members.data;
  const pep_i_member *twice = pep_i_sort(members, r->members.len / sizeof *members, r->scratch.data);
  if (twice)
    return pep_i_request_fail(r, "`%.*s` is given twice in %s: keep one",
                              (int)(twice->key_len < 100 ? twice->key_len : 100),
                              (const char *)r->scratch.data + twice->key, pep_i_place((int)twice->place));
  size_t at = 0;
  int ok = pep_append(&r->frame, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", PEP_I_HEADER) &&
           pep_i_byte(&r->frame, 0x95);
  for (size_t place = PEP_SUBJECT; ok && place <= PEP_RESOURCE; place++) ok = pep_i_put_named(r, &at, place);
  ok = ok && pep_i_put_map(r, &at, PEP_CONTEXT) && pep_i_put_head(&r->frame, 'a', r->num_chain);
  for (size_t i = 0; ok && i < r->num_chain; i++) ok = pep_i_put_named(r, &at, PEP_CHAIN + i);
  if (!ok || r->frame.len > PEP_MAX_FRAME) return pep_i_request_fail(r, "the question is too large");
  r->question_len = r->frame.len - PEP_I_HEADER;
  r->sealed = 1;
  return 1;
}

void pep_request_cleanup(pep_request *r) {
  pep_buffer_cleanup(&r->scratch);
  pep_buffer_cleanup(&r->members);
  pep_buffer_cleanup(&r->frame);
  memset(r, 0, sizeof *r);
}

/* ---- Reading canonical msgpack: every token is checked for its shortest form before its length is believed. ---- */

typedef struct pep_i_token_st {
  char kind; /* n nil, b bool, u unsigned, i negative, f float, s str, a array, m map */
  uint64_t value; /* number, bits of a negative or a float, length or count */
  const uint8_t *data;
} pep_i_token;

static uint64_t pep_i_get_be(const uint8_t *from, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; i++) value = value << 8 | from[i];
  return value;
}

static int pep_i_token_next(pep_cursor *c, pep_i_token *out) {
  if (c->data >= c->end) return 0;
  uint8_t head = *c->data++;
  size_t left = (size_t)(c->end - c->data), wide = 0;
  uint64_t least = 0; /* below this a shorter form exists */
  memset(out, 0, sizeof *out);
  if (head < 0x80) return out->kind = 'u', out->value = head, 1;
  if (head >= 0xe0) return out->kind = 'i', out->value = (uint64_t)(int64_t)(int8_t)head, 1;
  if (head < 0xc0) {
    out->kind = head < 0x90 ? 'm' : head < 0xa0 ? 'a' : 's';
    out->value = head & (head < 0xa0 ? 0x0f : 0x1f);
  } else { /* 0xc0 to 0xdf, one column each; bin, ext, float32 and the unused ones are dots */
    static const char kinds[] = "n.bb.......fuuuuiiii.....sssaamm", widths[] = "00000000000812481248000001242424";
    out->kind = kinds[head - 0xc0];
    wide = (size_t)(widths[head - 0xc0] - '0');
    if (out->kind == '.') return 0;
    if (out->kind == 'n' || out->kind == 'b') return out->value = head & 1, 1;
    if (out->kind == 'u') least = wide == 1 ? 0x80 : (uint64_t)1 << (4 * wide);
    if (out->kind == 's') least = wide == 1 ? 32 : (uint64_t)1 << (4 * wide);
    if (out->kind == 'a' || out->kind == 'm') least = wide == 2 ? 16 : 0x10000;
  }
  if (wide) {
    if (left < wide) return 0;
    out->value = pep_i_get_be(c->data, wide);
    c->data += wide;
    left -= wide;
    if (out->value < least) return 0;
    if (out->kind == 'i') { /* sign-extend; refuse what a shorter form could hold */
      int64_t v = wide == 1   ? (int8_t)out->value
                  : wide == 2 ? (int16_t)out->value
                  : wide == 4 ? (int32_t)out->value
                              : (int64_t)out->value;
      if (v >= (wide == 1 ? -32 : wide == 2 ? INT8_MIN : wide == 4 ? INT16_MIN : INT32_MIN)) return 0;
      out->value = (uint64_t)v;
    }
    if (out->kind == 'f' && (out->value >> 52 & 0x7ff) == 0x7ff) return 0;
  }
  if (out->kind == 's') {
    if (out->value > left || !pep_i_utf8(c->data, (size_t)out->value)) return 0;
    out->data = c->data;
    c->data += out->value;
  }
  if (out->kind == 'a' && out->value > left) return 0;
  return out->kind != 'm' || out->value <= left / 2;
}

static int pep_i_want(pep_cursor *c, pep_i_token *out, char kind) {
  return pep_i_token_next(c, out) && out->kind == kind;
}

static int pep_i_want_str(pep_cursor *c, pep_string *out) {
  pep_i_token t;
  if (!pep_i_want(c, &t, 's')) return 0;
  out->data = (const char *)t.data;
  out->len = (size_t)t.value;
  return 1;
}

/* Reads the next key of a map; it must come after the one in `*key`, which starts with a NULL `data`. */
static int pep_i_want_key(pep_cursor *c, pep_string *key) {
  pep_string next;
  if (!pep_i_want_str(c, &next)) return 0;
  if (key->data) {
    size_t shorter = key->len < next.len ? key->len : next.len;
    int order = memcmp(key->data, next.data, shorter);
    if (order > 0 || (!order && key->len >= next.len)) return 0;
  }
  *key = next;
  return 1;
}

static int pep_i_is(const pep_string *s, const char *text) {
  return s->len == strlen(text) && !memcmp(s->data, text, s->len);
}

/* Steps over one value of any kind, validating all of it. */
static int pep_i_skip(pep_cursor *c, int depth) {
  pep_i_token t;
  pep_string key = {NULL, 0};
  if (!pep_i_token_next(c, &t)) return 0;
  if (t.kind != 'a' && t.kind != 'm') return 1;
  if (depth > PEP_I_REPLY_DEPTH) return 0;
  for (uint64_t i = 0; i < t.value; i++) {
    if (t.kind == 'm' && !pep_i_want_key(c, &key)) return 0;
    if (!pep_i_skip(c, depth + 1)) return 0;
  }
  return 1;
}

int pep_next_policy(pep_cursor *c, pep_string *out_policy) {
  if (!c->num || !pep_i_want_str(c, out_policy)) return 0;
  c->num--;
  return 1;
}

int pep_next_obligation(pep_cursor *c, pep_obligation *out) {
  pep_i_token t;
  memset(out, 0, sizeof *out);
  if (!c->num || !pep_i_want(c, &t, 'a') || t.value != 3) return 0;
  if (!pep_i_want_str(c, &out->id) || !pep_i_want_str(c, &out->type)) return 0;
  out->properties = c->data;
  pep_cursor look = *c;
  if (!pep_i_want(&look, &t, 'm') || !pep_i_skip(c, 4)) return 0;
  out->properties_len = (size_t)(c->data - out->properties);
  c->num--;
  return 1;
}

/* ---- Client: one question in flight, on one kept connection, under one absolute deadline ---- */

const char *pep_fault_name(int fault) {
  static const char *const names[] = {"none",          "bad-frame",  "bad-question", "bad-request", "refused",
                                      "not-available", "overloaded", "deadline",     "pdp",         "obligation",
                                      "unreachable",   "draining",   "stale",        "expired"};
  return fault >= 0 && fault < (int)(sizeof names / sizeof *names) ? names[fault] : "unknown";
}

static int pep_i_deny(pep_verdict *v, int fault, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(v->error, sizeof v->error, format, args);
  va_end(args);
  pep_i_trim(v->error);
  if (!v->error[0]) snprintf(v->error, sizeof v->error, "%s, without a text", pep_fault_name(fault));
  v->permit = 0;
  v->fault = fault;
  return 0;
}

static uint64_t pep_i_clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t pep_i_now_ns(void) { return pep_i_clock_ns(CLOCK_MONOTONIC); }

/* Waits for `events`, at most to the deadline; fd -1 only sleeps, at most `most_ns`. Returns 0 when time is up. */
static int pep_i_wait(int fd, short events, uint64_t deadline_ns, uint64_t most_ns) {
  uint64_t now = pep_i_now_ns();
  if (now >= deadline_ns) return 0;
  uint64_t left = deadline_ns - now < most_ns ? deadline_ns - now : most_ns;
  struct timespec timeout = {(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
  struct pollfd p = {fd, events, 0};
  return ppoll(&p, fd < 0 ? 0 : 1, &timeout, NULL) != 0 || fd < 0;
}

static void pep_i_forget(pep_client *c);

static void pep_i_close(pep_client *c) {
  if (c->is_open) close(c->fd);
  while (c->num_held) close(c->passed[--c->num_held]);
  if (c->is_open && c->counts) pep_i_forget(c); /* nobody fetches what is counted from here on */
  c->is_open = c->awaits_page = c->num_passed = 0;
  c->frame_limit = 0;
}

static int pep_i_late(pep_verdict *v) { return pep_i_deny(v, PEP_DEADLINE, "no verdict within the deadline"); }

static int pep_i_discover(pep_client *c, const char *path) {
  struct stat st;
  int n;
  /* secure_getenv: in a set-uid program the caller must not choose who answers */
  if (!path || !*path) path = secure_getenv("PEPCORE_SOCKET");
  if (path && *path) {
    n = snprintf(c->path, sizeof c->path, "%s", path);
  } else {
    const char *run = secure_getenv("XDG_RUNTIME_DIR");
    n = run && *run ? snprintf(c->path, sizeof c->path, "%s/pepcore/pepcore.sock", run) : -1;
    if (n < 0 || n >= (int)sizeof c->path || stat(c->path, &st))
      n = snprintf(c->path, sizeof c->path, "/run/pepcore/pepcore.sock");
  }
  if (n >= 0 && n < (int)sizeof c->path) return 1;
  c->path[0] = 0;
  snprintf(c->error, sizeof c->error, "the socket's path has over 107 bytes: use a shorter one");
  return 0;
}

static int pep_i_text_order(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The frame that opens every connection: header (id 1, partition 0) and {"client", "handles", "point", "versions"}. */
static int pep_i_write_hello(pep_client *c, const char *point, const char **handles, size_t num) {
  pep_buffer *b = &c->hello;
  static const uint8_t zeros[PEP_I_HEADER] = {0};
  int ok = pep_append(b, zeros, PEP_I_HEADER) && pep_i_put_head(b, 'm', 4) && pep_i_put_str(b, "client", 6) &&
           pep_i_put_str(b, "pepcore.h/" PEP_VERSION, strlen("pepcore.h/" PEP_VERSION)) &&
           pep_i_put_str(b, "handles", 7);
  c->handles_offset = b->len;
  ok = ok && pep_i_put_head(b, 'a', num);
  for (size_t i = 0; ok && i < num; i++) ok = pep_i_put_str(b, handles[i], strlen(handles[i]));
  ok = ok && pep_i_put_str(b, "point", 5) && pep_i_put_str(b, point, strlen(point)) &&
       pep_i_put_str(b, "versions", 8) && pep_i_byte(b, 0x91) && pep_i_byte(b, 1);
  if (!ok || b->len > PEP_MAX_FRAME) return 0;
  pep_i_put_le(b->data, b->len - PEP_I_HEADER, 4);
  b->data[8] = 1;
  b->data[9] = PEP_I_OP_HELLO;
  pep_i_put_le(b->data + 16, 1, 8);
  return 1;
}

/* Whether a daemon takes the name in a hello: it would refuse each question of a connection that opens with another. */
static int pep_i_hello_name(pep_client *c, const char *field, const char *name) {
  size_t len = strlen(name), chars = 0, shown = 0;
  if (!pep_i_utf8(name, len)) return snprintf(c->error, sizeof c->error, "%s is not valid UTF-8", field), 0;
  for (size_t i = 0; i < len; i++)
    if ((name[i] & 0xc0) != 0x80 && ++chars == 21) shown = i;
  if (chars <= PEP_MAX_NAME) return 1;
  snprintf(c->error, sizeof c->error, "%s `%.*s...` has %zu characters, more than %d: use a shorter one", field,
           (int)shown, name, chars, PEP_MAX_NAME);
  return 0;
}

int pep_connect(pep_client *c, const char *path, const char *point, const char *const *handles, size_t num_handles) {
  pep_client_cleanup(c);
  if (!point) point = "";
  if (!pep_i_hello_name(c, "point", point)) return 0;
  for (size_t i = 0; i < num_handles; i++) {
    if (!pep_i_hello_name(c, "handle", handles[i])) return 0;
    if (!*handles[i])
      return snprintf(c->error, sizeof c->error, "handle %zu is empty: name an obligation type", i + 1), 0;
  }
  const char **sorted = (const char **)calloc(num_handles + 1, sizeof *sorted);
  size_t unique = 0;
  if (!sorted) return snprintf(c->error, sizeof c->error, "no memory for the handles"), 0;
  if (num_handles) memcpy(sorted, handles, num_handles * sizeof *sorted);
  qsort(sorted, num_handles, sizeof *sorted, pep_i_text_order);
  for (size_t i = 0; i < num_handles; i++)
    if (!unique || strcmp(sorted[unique - 1], sorted[i])) sorted[unique++] = sorted[i];
  int ok = unique <= PEP_MAX_HANDLES;
  if (!ok)
    snprintf(c->error, sizeof c->error, "handles are %zu obligation types, more than %d: name those that are discharged",
             unique, PEP_MAX_HANDLES);
  else if (!(ok = pep_i_write_hello(c, point, sorted, unique)))
    snprintf(c->error, sizeof c->error, "no memory for the hello, or PEP_MAX_FRAME is too small");
  free(sorted);
  return ok && pep_i_discover(c, path);
}

/* Whether this process may believe what the peer says: root, this user, or the owner of a closed run directory. */
static int pep_i_trust(pep_client *c, pep_verdict *v) {
  struct ucred peer;
  socklen_t len = sizeof peer;
  struct stat st;
  char dir[sizeof c->path];
  memcpy(dir, c->path, sizeof dir);
  char *slash = strrchr(dir, '/');
  if (!slash) memcpy(dir, ".", 2);
  else slash[slash == dir] = 0;
  if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || len != sizeof peer)
    return pep_i_deny(v, PEP_REFUSED, "the kernel does not say who serves %s", c->path);
  /* 65534 stands for every uid that this user namespace cannot name */
  if (peer.uid != 65534) {
    if (peer.uid == 0 || peer.uid == geteuid()) return 1;
    if (!stat(dir, &st) && st.st_uid == peer.uid && !(st.st_mode & 022)) return 1;
  }
  return pep_i_deny(v, PEP_REFUSED,
                    "%s is served by uid %u: not root, not this user, not the owner of a directory closed to others",
                    c->path, (unsigned)peer.uid);
}

/* Why nobody answers, and what to do about it. */
static int pep_i_absent(pep_client *c, pep_verdict *v, int why) {
  const char *advice = "";
  if (why == ENOENT || why == ENOTDIR || why == ECONNREFUSED)
    advice = ": start it with `pepcore serve`, or name its socket in PEPCORE_SOCKET";
  if (why == EACCES) advice = ": ask as a user who may open it, or name another socket in PEPCORE_SOCKET";
  return pep_i_deny(v, PEP_UNREACHABLE, "no daemon at `%s`: %s%s", c->path, strerror(why), advice);
}

/* A socket above the standard streams: where one of them is closed its number is free, and what the program means to
 * print would go to the daemon. */
static int pep_i_socket(void) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || fd > 2) return fd;
  int above = fcntl(fd, F_DUPFD_CLOEXEC, 3), why = errno;
  close(fd);
  errno = why;
  return above;
}

static int pep_i_open(pep_client *c, pep_verdict *v, uint64_t deadline_ns) {
  struct sockaddr_un address;
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, c->path,
         sizeof c->path < sizeof address.sun_path ? sizeof c->path : sizeof address.sun_path);
  c->fd = pep_i_socket();
  if (c->fd < 0) return pep_i_deny(v, PEP_UNREACHABLE, "no socket: %s", strerror(errno));
  c->is_open = 1;
  c->pid = (int)getpid();
  c->next_id = 2;
  c->awaits_page = c->kept != NULL;
  c->is_offered = 0;
  c->told_ns = 0;
  c->begun_ns = pep_i_clock_ns(CLOCK_BOOTTIME);
  while (connect(c->fd, (const struct sockaddr *)&address, sizeof address)) {
    if (errno == EISCONN) break;
    /* EAGAIN: the backlog is full. A Unix socket has no event for that, so look again soon. */
    if (errno != EAGAIN && errno != EINTR)
      return pep_i_absent(c, v, errno);
    if (!pep_i_wait(-1, 0, deadline_ns, 500000)) return pep_i_late(v);
  }
  return pep_i_trust(c, v);
}

/* What became of a step. GONE: closed before one byte of a reply came, so on a kept connection worth another try.
 * ERROR: a whole error frame, which is a deny, but leaves the stream in order. */
enum { PEP_I_FAILED = 0, PEP_I_DONE = 1, PEP_I_GONE = 2, PEP_I_ERROR = 3 };

/* GONE: the daemon hung up before it had all. What it said before that is still to be read. */
static int pep_i_send(pep_client *c, pep_verdict *v, uint64_t deadline_ns) {
  for (size_t sent = 0; sent < c->out.len;) {
    ssize_t n = send(c->fd, c->out.data + sent, c->out.len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) sent += (size_t)n;
    else if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
      return pep_i_deny(v, PEP_UNREACHABLE, "the daemon closed the connection"), PEP_I_GONE;
    else if (n < 0 && errno != EAGAIN && errno != EINTR)
      return pep_i_deny(v, PEP_UNREACHABLE, "cannot send: %s", strerror(errno));
    else if (!pep_i_wait(c->fd, POLLOUT, deadline_ns, UINT64_MAX)) return pep_i_late(v);
  }
  return PEP_I_DONE;
}

/* As recv, until the welcome is there: the page's descriptor comes beside it, and that of the counts. Two are held, any
 * other closed. Where the kernel had to drop some, those that are held need not be these, and count as three. */
static ssize_t pep_i_receive(pep_client *c) {
  union {
    struct cmsghdr align;
    uint8_t room[CMSG_SPACE(4 * sizeof(int))];
  } control;
  struct iovec into = {c->in.data + c->in.len, c->in.cap - c->in.len};
  struct msghdr m;
  memset(&m, 0, sizeof m);
  m.msg_iov = &into;
  m.msg_iovlen = 1;
  m.msg_control = &control;
  m.msg_controllen = sizeof control;
  ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0) return n;
  for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0, fds = h->cmsg_len - CMSG_LEN(0); at + sizeof(int) <= fds; at += sizeof(int)) {
      int fd;
      memcpy(&fd, CMSG_DATA(h) + at, sizeof fd);
      if (c->num_held < 2) c->passed[c->num_held++] = fd;
      else close(fd);
      c->num_passed++;
    }
  }
  if (m.msg_flags & MSG_CTRUNC && c->num_passed) c->num_passed = c->num_passed < 3 ? 3 : c->num_passed;
  return n;
}

/* Reads until `in` holds `len` bytes that were not used yet. */
static int pep_i_read(pep_client *c, pep_verdict *v, size_t len, uint64_t deadline_ns) {
  size_t want = c->in_used + len > 4096 ? c->in_used + len : 4096;
  if (want > c->in.len && !pep_i_reserve(&c->in, want - c->in.len))
    return pep_i_deny(v, PEP_OVERLOADED, "no memory for the reply");
  while (c->in.len - c->in_used < len) {
    if (!pep_i_wait(c->fd, POLLIN, deadline_ns, UINT64_MAX)) return pep_i_late(v);
    ssize_t n = c->awaits_page ? pep_i_receive(c)
                               : recv(c->fd, c->in.data + c->in.len, c->in.cap - c->in.len, MSG_DONTWAIT);
    if (n > 0) c->in.len += (size_t)n;
    else if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    else
      return pep_i_deny(v, PEP_UNREACHABLE, "the daemon closed the connection"),
             c->in.len ? PEP_I_FAILED : PEP_I_GONE;
  }
  return PEP_I_DONE;
}

/* An error frame's body, as a deny. */
static int pep_i_read_error(pep_verdict *v, pep_cursor c) {
  pep_i_token map, code;
  pep_string key = {NULL, 0}, field = {NULL, 0}, reason = {NULL, 0};
  int ok = pep_i_want(&c, &map, 'm') && map.value == 3 && pep_i_want_key(&c, &key) && pep_i_is(&key, "code") &&
           pep_i_want(&c, &code, 'u') && code.value > 0 && code.value < 256 && pep_i_want_key(&c, &key) &&
           pep_i_is(&key, "field") && pep_i_want_str(&c, &field) && pep_i_want_key(&c, &key) &&
           pep_i_is(&key, "reason") && pep_i_want_str(&c, &reason) && c.data == c.end;
  if (!ok) return pep_i_deny(v, PEP_BAD_FRAME, "the daemon sent a malformed error frame");
  (void)pep_i_deny(v, (int)code.value, "%.*s%s%.*s", field.len < 100 ? (int)field.len : 100, field.data,
                   field.len ? ": " : "", reason.len < 200 ? (int)reason.len : 200, reason.data);
  return PEP_I_ERROR;
}

/* Takes one reply off the stream into `out`: header checked field by field, body bounded before it is read. */
static int pep_i_reply(pep_client *c, pep_verdict *v, pep_cursor *out, unsigned op, uint32_t partition, uint64_t id,
                       uint64_t deadline_ns) {
  int got = pep_i_read(c, v, PEP_I_HEADER, deadline_ns);
  if (got != PEP_I_DONE) return got;
  const uint8_t *h = c->in.data + c->in_used;
  size_t len = (size_t)pep_i_get_le(h, 4);
  unsigned reply = h[9];
  if (len > PEP_MAX_FRAME)
    return pep_i_deny(v, PEP_BAD_FRAME, "the daemon's reply is larger than %u bytes", (unsigned)PEP_MAX_FRAME);
  if (h[8] != 1 || pep_i_get_le(h + 4, 4) || pep_i_get_le(h + 10, 2) ||
      (reply != (op | PEP_I_REPLY) && reply != PEP_I_OP_ERROR))
    return pep_i_deny(v, PEP_BAD_FRAME, "the daemon's reply is not one of version 1 to this request");
  if (pep_i_get_le(h + 12, 4) != partition || pep_i_get_le(h + 16, 8) != id)
    return pep_i_deny(v, PEP_BAD_FRAME, "the daemon's reply answers another request");
  c->in_used += PEP_I_HEADER;
  got = pep_i_read(c, v, len, deadline_ns);
  if (got != PEP_I_DONE) return got;
  out->data = c->in.data + c->in_used;
  out->end = out->data + len;
  out->num = 1;
  c->in_used += len;
  return reply == PEP_I_OP_ERROR ? pep_i_read_error(v, *out) : PEP_I_DONE;
}

static int pep_i_read_limits(pep_client *c, pep_cursor *body) {
  pep_i_token map, t;
  pep_string key = {NULL, 0};
  if (!pep_i_want(body, &map, 'm')) return 0;
  for (uint64_t i = 0; i < map.value; i++) {
    if (!pep_i_want_key(body, &key)) return 0;
    if (!pep_i_is(&key, "frame")) {
      if (!pep_i_skip(body, 3)) return 0;
      continue;
    }
    if (!pep_i_want(body, &t, 'u')) return 0;
    c->frame_limit = t.value < PEP_MAX_FRAME ? (size_t)t.value : PEP_MAX_FRAME;
  }
  return 1;
}

static int pep_i_read_hello(pep_client *c, pep_verdict *v, pep_cursor body) {
  pep_i_token map, t;
  pep_string key = {NULL, 0};
  int version = 0, partition = 0, boot = 0, ok = pep_i_want(&body, &map, 'm');
  for (uint64_t i = 0; ok && i < map.value; i++) {
    if (!(ok = pep_i_want_key(&body, &key))) break;
    if (pep_i_is(&key, "boot")) ok = boot = pep_i_want(&body, &t, 'u'), c->boot = t.value;
    else if (pep_i_is(&key, "limits")) ok = pep_i_read_limits(c, &body);
    else if (c->awaits_page && pep_i_is(&key, "now")) ok = pep_i_want(&body, &t, 'u'), c->told_ns = t.value;
    else if (c->awaits_page && pep_i_is(&key, "page"))
      ok = pep_i_want(&body, &t, 'b'), c->is_offered = (int)t.value;
    else if (pep_i_is(&key, "partition")) ok = partition = pep_i_want(&body, &t, 'u') && t.value == PEP_I_PARTITION;
    else if (pep_i_is(&key, "version")) ok = version = pep_i_want(&body, &t, 'u') && t.value == 1;
    else ok = pep_i_skip(&body, 2);
  }
  if (ok && boot && partition && version && body.data == body.end) return PEP_I_DONE;
  return pep_i_deny(v, PEP_BAD_FRAME, "the daemon's hello is malformed or of another version");
}

/* Whether somebody discharges the type: the daemon did before it permitted, or the caller said that it will. */
static int pep_i_handled(const pep_client *c, const pep_string *type) {
  if (pep_i_is(type, "window") || pep_i_is(type, "rate") || pep_i_is(type, "notify")) return 1;
  pep_cursor handles = {c->hello.data + c->handles_offset, c->hello.data + c->hello.len, 0};
  pep_i_token array;
  pep_string one;
  if (!pep_i_want(&handles, &array, 'a')) return 0;
  for (uint64_t i = 0; i < array.value; i++)
    if (pep_i_want_str(&handles, &one) && one.len == type->len && !memcmp(one.data, type->data, one.len)) return 1;
  return 0;
}

/* Reads "obligations", "policies" and "reason" and checks every byte of them. */
static int pep_i_read_payload(pep_verdict *v, pep_cursor c) {
  pep_i_token map, t;
  pep_string key = {NULL, 0}, policy;
  pep_obligation obligation;
  if (c.data == c.end) return 1;
  if (!pep_i_want(&c, &map, 'm')) return 0;
  for (uint64_t i = 0; i < map.value; i++) {
    if (!pep_i_want_key(&c, &key)) return 0;
    if (pep_i_is(&key, "reason")) {
      if (!pep_i_want_str(&c, &v->reason)) return 0;
      continue;
    }
    int duties = pep_i_is(&key, "obligations");
    if ((!duties && !pep_i_is(&key, "policies")) || !pep_i_want(&c, &t, 'a')) return 0;
    pep_cursor *list = duties ? &v->obligations : &v->policies;
    c.num = (size_t)t.value;
    *list = c;
    while (c.num)
      if (duties ? !pep_next_obligation(&c, &obligation) : !pep_next_policy(&c, &policy)) return 0;
    list->end = c.data;
  }
  return c.data == c.end;
}

/* The verdict: the only place where a permit is made. */
static int pep_i_judge(pep_client *c, pep_verdict *v, pep_cursor body) {
  const uint8_t *b = body.data;
  size_t len = (size_t)(body.end - b);
  if (len < 40) return pep_i_deny(v, PEP_BAD_FRAME, "the daemon's verdict is shorter than 40 bytes");
  uint64_t payload = pep_i_get_le(b + 12, 4), stamps = b[3];
  if (b[0] > 1 || b[2] > 1 || (b[0] && b[1]) || stamps > 32 || len != 40 + payload + 2 * stamps ||
      pep_i_get_le(b + 8, 4) > pep_i_get_le(b + 4, 4))
    return pep_i_deny(v, PEP_BAD_FRAME, "the daemon's verdict is malformed");
  pep_cursor rest = {b + 40, b + 40 + payload, 0};
  if (!pep_i_read_payload(v, rest)) {
    memset(v, 0, sizeof *v);
    return pep_i_deny(v, PEP_BAD_FRAME, "the payload of the daemon's verdict is malformed");
  }
  v->cached = b[2] & 1;
  v->lifetime_ms = (uint32_t)pep_i_get_le(b + 4, 4);
  v->id = pep_i_get_le(b + 16, 8);
  v->boot = pep_i_get_le(b + 24, 8);
  v->revision = pep_i_get_le(b + 32, 8);
  if (b[1])
    return pep_i_deny(v, b[1], "%.*s", v->reason.len < 200 ? (int)v->reason.len : 200,
                      v->reason.len ? v->reason.data : "");
  if (b[0] != 1) return 0;
  pep_obligation duty;
  for (pep_cursor each = v->obligations; pep_next_obligation(&each, &duty);)
    if (!pep_i_handled(c, &duty.type))
      return pep_i_deny(v, PEP_OBLIGATION, "obligation `%.*s` is not in `handles`: this caller does not discharge it",
                        duty.type.len < 100 ? (int)duty.type.len : 100, duty.type.data);
  v->permit = 1;
  return 1;
}

/* ---- Answers that are kept: a table of this client, under the daemon's page (bindings/README.md, "The page").
 *
 * A lookup probes one set of 8. The whole question is compared; its hash only chooses the set and spares comparisons.
 * INVARIANT: an entry holds a question and the body of the verdict on it, as they were on the wire, with fault 0 and
 * the boot of `page`; `revision` is the body's, or a later one at which none of its slots had been revoked since. It
 * becomes a verdict in pep_i_judge, like any other body. In a forked child the kernel has wiped it: no entry. ---- */

#define PEP_I_PAGE_MAGIC 0x3145474150504550u /* words of the page's header: "PEPPAGE1", read as little-endian */
#define PEP_I_PAGE_BOOT 1
#define PEP_I_PAGE_LEASE 2
#define PEP_I_PAGE_REVISION 3
#define PEP_I_PAGE_SLOT 512
#define PEP_I_PAGE_BYTES (8u * (PEP_I_PAGE_SLOT + 65536u))
/* The lease is a time of the daemon's clock: its own look at it lies between two of ours, or it is another clock. */
#ifndef PEP_I_SAME_CLOCK
#define PEP_I_SAME_CLOCK(c) ((c)->told_ns >= (c)->begun_ns && (c)->told_ns <= pep_i_clock_ns(CLOCK_BOOTTIME))
#endif
#define PEP_I_COUNTS_MAGIC 0x3153544948504550u /* words of the counts: "PEPHITS1" (pepcore/core/counts.pyx) */
#define PEP_I_COUNTS_LEFT 2
#define PEP_I_COUNTS_MARKS 64
#define PEP_I_COUNTS_RING 192
#define PEP_I_COUNTS_PAIRS (192u + 2u * 1024u)
#define PEP_I_COUNTED 8192u
#define PEP_I_COUNTS_BYTES (8u * (PEP_I_COUNTS_PAIRS + 2u * PEP_I_COUNTED))
#define PEP_I_LEASE_NS 100000000u /* how long a daemon that says nothing is believed */
#define PEP_I_JUMP_MS 1000 /* a wall clock that moved by more, altogether, was set; by less it may be slewed */
#define PEP_I_WAYS 8
#define PEP_I_FUTURE_WRITE 0x10 /* F_SEAL_FUTURE_WRITE and MADV_WIPEONFORK, which older headers lack */
#define PEP_I_WIPE_ON_FORK 18

typedef struct pep_i_entry_st {
  uint64_t expires_ns, ends_ns; /* until when it may be kept (0: dropped), and until when it holds; CLOCK_BOOTTIME */
  uint64_t revision;
  uint32_t question_len, body_len; /* 0: a hole */
  uint8_t bytes[PEP_MAX_KEPT];     /* the question, then the body */
} pep_i_entry;

typedef struct pep_i_set_st {
  uint64_t hashes[PEP_I_WAYS]; /* beside each other: what a lookup compares first */
  uint32_t visited, hand;      /* visited: a bit for each way */
  pep_i_entry ways[PEP_I_WAYS];
} pep_i_set;

/* Words that the daemon writes while they are read: slots before the revision, so the revision is read before slots. */
static uint64_t pep_i_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

#ifndef PEP_I_HASH
#define PEP_I_HASH pep_i_hash
/* Whoever knows `seed` can crowd a set, no more. */
static uint64_t pep_i_hash(const uint8_t *p, size_t len, uint64_t seed) {
  const uint64_t odd = 0x9e3779b97f4a7c15u;
  uint64_t h = seed ^ len * odd, word;
  for (; len >= sizeof word; p += sizeof word, len -= sizeof word) {
    memcpy(&word, p, sizeof word);
    h = (h ^ word) * odd;
    h ^= h >> 32;
  }
  word = 0;
  memcpy(&word, p, len);
  h = (h ^ word) * odd;
  return h ^ h >> 29;
}
#endif

/* Whether none of the slots on which a body hangs was revoked after `since`; a body without slots: nothing was. */
static int pep_i_untouched(const uint64_t *page, const uint8_t *body, size_t len, uint64_t since) {
  size_t num = body[3];
  const uint8_t *stamp = body + len - 2 * num;
  if (!num) return pep_i_load(page + PEP_I_PAGE_REVISION) == since;
  for (size_t i = 0; i < num; i++, stamp += 2)
    if (pep_i_load(page + PEP_I_PAGE_SLOT + (stamp[0] | stamp[1] << 8)) > since) return 0;
  return 1;
}

/* Whether nothing was revoked on which the entry hangs. It remembers at which revision that was seen. */
static int pep_i_stands(const uint64_t *page, pep_i_entry *e) {
  uint64_t revision = pep_i_load(page + PEP_I_PAGE_REVISION);
  if (e->revision == revision) return 1;
  if (!pep_i_untouched(page, e->bytes + e->question_len, e->body_len, e->revision)) return 0;
  e->revision = revision;
  return 1;
}

static void pep_i_count(pep_client *c, size_t at);
static void pep_i_count_from(pep_client *c, size_t at, uint64_t id);

static pep_i_set *pep_i_set_of(const pep_client *c, uint64_t hash) {
  return c->kept + (hash & (c->num_sets - 1));
}

static int pep_i_is_entry(const pep_i_set *set, size_t way, uint64_t hash, const pep_request *r) {
  const pep_i_entry *e = &set->ways[way];
  return set->hashes[way] == hash && e->question_len && e->question_len == r->question_len &&
         !memcmp(e->bytes, r->frame.data + PEP_I_HEADER, r->question_len);
}

static int64_t pep_i_wall_ahead_ms(uint64_t now_ns) {
  return (int64_t)(pep_i_clock_ns(CLOCK_REALTIME_COARSE) / 1000000) - (int64_t)(now_ns / 1000000);
}

/* Whether the wall clock was set, on which windows and lifetimes were measured. Everything that is kept ends then: the
 * daemon may be asleep, and marks its page only when somebody asks. */
static int pep_i_wall_was_set(pep_client *c, uint64_t now_ns) {
  int64_t ahead = pep_i_wall_ahead_ms(now_ns), moved = ahead - c->wall_ahead_ms;
  if (moved <= PEP_I_JUMP_MS && moved >= -PEP_I_JUMP_MS) return 0;
  c->wall_ahead_ms = ahead;
  for (size_t i = 0; i < c->num_sets * PEP_I_WAYS; i++) {
    pep_i_entry *e = &c->kept[i / PEP_I_WAYS].ways[i % PEP_I_WAYS];
    if (e->question_len) e->expires_ns = 0; /* no write where nothing was: that would take memory */
  }
  return 1;
}

/* Answers from the table where the answer stands: the verdict is what pep_i_judge says of the body that was kept. */
static int pep_i_recall(pep_client *c, pep_verdict *v, pep_request *r) {
  if (!c->page || r->has_min_revision || !pep_request_seal(r)) return 0;
  uint64_t hash = PEP_I_HASH(r->frame.data + PEP_I_HEADER, r->question_len, c->page_boot), lease, now, left;
  pep_i_set *set = pep_i_set_of(c, hash);
  size_t way = 0;
  while (way < PEP_I_WAYS && !pep_i_is_entry(set, way, hash, r)) way++;
  if (way == PEP_I_WAYS) return 0;
  pep_i_entry *e = &set->ways[way];
  /* The lease before the clock, or one that is renewed between the two would end too far ahead; both before the
   * revision. One unsigned comparison: a lease far ahead (a clock of another time namespace) is no life either. */
  lease = pep_i_load(c->page + PEP_I_PAGE_LEASE);
  now = pep_i_clock_ns(CLOCK_BOOTTIME);
  if (lease - now > PEP_I_LEASE_NS) return 0;
  if (pep_i_wall_was_set(c, now)) return 0;
  if (e->expires_ns <= now || !pep_i_stands(c->page, e)) return e->expires_ns = 0, 0;
  left = (e->ends_ns - now) / 1000000;
  if (r->has_not_after) {
    uint64_t wall_ms = pep_i_clock_ns(CLOCK_REALTIME) / 1000000;
    if (wall_ms >= r->not_after_ms) return 0; /* asked, and denied by the daemon */
    if (r->not_after_ms - wall_ms < left) left = r->not_after_ms - wall_ms;
  }
  /* a copy: the verdict's strings would be wiped with the table if the process forks before it walks its obligations */
  c->in.len = c->in_used = 0;
  if (!pep_append(&c->in, e->bytes + e->question_len, e->body_len)) return 0;
  pep_cursor body = {c->in.data, c->in.data + c->in.len, 1};
  set->visited |= 1u << way;
  pep_i_count(c, (size_t)(set - c->kept) * PEP_I_WAYS + way);
  (void)pep_i_judge(c, v, body);
  v->cached = 1;
  v->lifetime_ms = (uint32_t)left;
  return 1;
}

/* The way for an answer: that of the same question, one that is dead, or what the hand finds not visited. */
static size_t pep_i_way(const pep_client *c, pep_i_set *set, uint64_t hash, const pep_request *r, uint64_t now) {
  size_t dead = PEP_I_WAYS, way;
  for (way = 0; way < PEP_I_WAYS; way++) {
    pep_i_entry *e = &set->ways[way];
    if (pep_i_is_entry(set, way, hash, r)) return way;
    if (!e->question_len || e->expires_ns <= now || !pep_i_stands(c->page, e)) dead = way;
  }
  if (dead < PEP_I_WAYS) return dead;
  for (;;) { /* at most twice around: the first turn clears every bit */
    way = set->hand;
    set->hand = (set->hand + 1) % PEP_I_WAYS;
    if (!(set->visited & 1u << way)) return way;
    set->visited &= ~(1u << way);
  }
}

/* Keeps the body of a verdict that was judged, if it may be kept and still stands. `asked_ns`: before it was asked. */
static void pep_i_keep(pep_client *c, const pep_verdict *v, const pep_request *r, pep_cursor body,
                       uint64_t asked_ns) {
  if (!c->page || r->has_min_revision || v->fault || v->boot != c->page_boot) return;
  size_t len = (size_t)(body.end - body.data);
  uint64_t now = pep_i_clock_ns(CLOCK_BOOTTIME), expires_ns = asked_ns + pep_i_get_le(body.data + 8, 4) * 1000000;
  if (len > PEP_MAX_KEPT || r->question_len > PEP_MAX_KEPT - len) return;
  if (expires_ns <= now || !pep_i_untouched(c->page, body.data, len, v->revision)) return;
  const uint8_t *question = r->frame.data + PEP_I_HEADER;
  uint64_t hash = PEP_I_HASH(question, r->question_len, c->page_boot);
  pep_i_set *set = pep_i_set_of(c, hash);
  size_t way = pep_i_way(c, set, hash, r, now);
  pep_i_entry *e = &set->ways[way];
  pep_i_count_from(c, (size_t)(set - c->kept) * PEP_I_WAYS + way, v->id);
  set->hashes[way] = hash;
  set->visited &= ~(1u << way);
  e->expires_ns = expires_ns;
  e->ends_ns = asked_ns + (uint64_t)v->lifetime_ms * 1000000;
  e->revision = v->revision;
  e->question_len = (uint32_t)r->question_len;
  e->body_len = (uint32_t)len;
  memcpy(e->bytes, question, r->question_len);
  memcpy(e->bytes + r->question_len, body.data, len);
}

/* The page is another one, or none: what was kept under it is dropped. */
static void pep_i_forget(pep_client *c) {
  if (c->page) munmap((void *)(uintptr_t)c->page, PEP_I_PAGE_BYTES);
  if (c->counts) munmap(c->counts, PEP_I_COUNTS_BYTES);
  c->page = NULL;
  c->counts = NULL;
  for (size_t i = 0; c->kept && i < c->num_sets * PEP_I_WAYS; i++) {
    pep_i_entry *e = &c->kept[i / PEP_I_WAYS].ways[i % PEP_I_WAYS];
    if (e->question_len) e->question_len = 0; /* no write where nothing was: that would take memory */
  }
}

static void pep_i_page_fails(pep_client *c, const char *reason) {
  char why[sizeof c->page_error];
  snprintf(why, sizeof why, "the daemon's page is not used: %s", reason);
  if (!strcmp(why, c->page_error)) return;
  memcpy(c->page_error, why, sizeof why);
  c->page_told = 0;
}

/* Maps the page behind a descriptor, where it is what the daemon said and nobody who got it can cut or write it. The
 * seals are looked at before the size, which they hold: no access to the mapping can fail later. */
static void pep_i_map(pep_client *c, int fd) {
  const int want = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | PEP_I_FUTURE_WRITE;
  int seals = fcntl(fd, F_GET_SEALS);
  struct stat st;
  void *at;
  const char *why = NULL;
  if (seals < 0 || (seals & want) != want) /* a mask: the kernel may add seals of its own */
    why = "its seals do not hold its size and content";
  else if (fstat(fd, &st) || st.st_size != PEP_I_PAGE_BYTES) why = "it has another size than a page";
  else if ((at = mmap(NULL, PEP_I_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED) why = strerror(errno);
  else {
    c->page = (const uint64_t *)at;
    c->page_boot = c->boot;
    if (pep_i_load(c->page) != PEP_I_PAGE_MAGIC) why = "its magic is wrong";
    else if (!c->boot || pep_i_load(c->page + PEP_I_PAGE_BOOT) != c->boot)
      why = "its boot id is not the one in the hello";
  }
  if (why) pep_i_forget(c), pep_i_page_fails(c, why);
  else if (!c->page_told) c->page_error[0] = 0;
}

/* Maps the counts behind a descriptor. A client that cannot count its hits for the daemon's record keeps nothing. */
static void pep_i_map_counts(pep_client *c, int fd) {
  const int want = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  int seals = fcntl(fd, F_GET_SEALS);
  struct stat st;
  void *at = MAP_FAILED;
  const char *why = NULL;
  if (c->num_sets * PEP_I_WAYS > PEP_I_COUNTED) why = "more answers are kept than can be counted";
  else if (seals < 0 || (seals & want) != want) why = "the seals of the counts do not hold their size";
  else if (fstat(fd, &st) || st.st_size != PEP_I_COUNTS_BYTES) why = "the counts have another size";
  else if ((at = mmap(NULL, PEP_I_COUNTS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
    why = strerror(errno);
  else {
    c->counts = (uint64_t *)at;
    if (pep_i_load(c->counts) != PEP_I_COUNTS_MAGIC || pep_i_load(c->counts + 1) != c->boot)
      why = "the counts are not those of this daemon";
  }
  if (why) pep_i_forget(c), pep_i_page_fails(c, why);
}

/* An entry was hit. After the addition: whoever takes the bit takes that, too. */
static void pep_i_count(pep_client *c, size_t at) {
  uint64_t *mark, bit = (uint64_t)1 << (at & 63);
  if (!c->counts) return;
  mark = c->counts + PEP_I_COUNTS_MARKS + at / 64;
  __atomic_fetch_add(c->counts + PEP_I_COUNTS_PAIRS + 2 * at + 1, 1, __ATOMIC_SEQ_CST);
  if (!(__atomic_load_n(mark, __ATOMIC_ACQUIRE) & bit)) __atomic_fetch_or(mark, bit, __ATOMIC_RELEASE);
}

/* Another entry comes to this place: what the old one served goes into the ring. */
static void pep_i_count_from(pep_client *c, size_t at, uint64_t id) {
  uint64_t *pair, *place, count, left;
  if (!c->counts) return;
  pair = c->counts + PEP_I_COUNTS_PAIRS + 2 * at;
  count = __atomic_exchange_n(pair + 1, 0, __ATOMIC_ACQ_REL);
  if (count) {
    left = c->counts[PEP_I_COUNTS_LEFT];
    place = c->counts + PEP_I_COUNTS_RING + 2 * (left % 1024);
    place[0] = pair[0], place[1] = count;
    __atomic_store_n(c->counts + PEP_I_COUNTS_LEFT, left + 1, __ATOMIC_RELEASE);
  }
  __atomic_store_n(pair, id, __ATOMIC_RELEASE);
}

/* After the welcome was read: what came beside it is the page, or closed. Another boot ends what was kept. */
static void pep_i_take_page(pep_client *c) {
  int num = c->num_passed;
  if (!c->awaits_page) return;
  c->awaits_page = c->num_passed = 0;
  if (c->page && c->page_boot != c->boot) pep_i_forget(c);
  if (c->counts) pep_i_forget(c); /* they were fetched over another connection */
  if (!c->page) {
    if (!c->is_offered) pep_i_page_fails(c, "it offers none");
    else if (num != 1 && num != 2)
      pep_i_page_fails(c, num ? "more than two descriptors came" : "its descriptor did not come");
    else if (!PEP_I_SAME_CLOCK(c))
      pep_i_page_fails(c, "the daemon has another clock, so that its lease cannot be told");
    else {
      pep_i_map(c, c->passed[0]);
      if (c->page && num == 2) pep_i_map_counts(c, c->passed[1]);
    }
  }
  while (c->num_held) close(c->passed[--c->num_held]);
}

/* Adds "page": true to the hello, behind the handles: the keys of a map are sorted. */
static int pep_i_ask_for_page(pep_client *c) {
  static const uint8_t field[] = {0xa4, 'p', 'a', 'g', 'e', 0xc3};
  pep_buffer *b = &c->hello;
  pep_cursor rest = {b->data + c->handles_offset, b->data + b->len, 0};
  if (b->len + sizeof field > PEP_MAX_FRAME || !pep_i_skip(&rest, 2)) return 0;
  size_t at = (size_t)(rest.data - b->data), behind = b->len - at;
  if (!pep_i_reserve(b, sizeof field)) return 0;
  memmove(b->data + at + sizeof field, b->data + at, behind);
  memcpy(b->data + at, field, sizeof field);
  b->len += sizeof field;
  b->data[PEP_I_HEADER]++; /* members of the map */
  pep_i_put_le(b->data, b->len - PEP_I_HEADER, 4);
  return 1;
}

int pep_client_keep(pep_client *c, size_t slots) {
  size_t sets = 1;
  const char *why = NULL;
  if (!c->hello.len) why = "there is no client that could keep answers: call pep_connect first";
  else if (c->kept) why = "the client keeps answers already";
  else if (c->is_open) why = "the client has asked already: call pep_client_keep before the first check";
  else if (slots > PEP_MAX_KEPT_SLOTS) why = "the client would keep more answers than PEP_MAX_KEPT_SLOTS";
  if (why) return snprintf(c->error, sizeof c->error, "%s", why), 0;
  if (!slots) slots = PEP_KEPT_SLOTS;
  while (sets * PEP_I_WAYS < slots) sets *= 2;
  void *at = mmap(NULL, sets * sizeof(pep_i_set), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return snprintf(c->error, sizeof c->error, "no memory for the answers to keep"), 0;
  if (madvise(at, sets * sizeof(pep_i_set), PEP_I_WIPE_ON_FORK))
    why = "this kernel cannot wipe memory in a forked child";
  else if (!pep_i_ask_for_page(c)) why = "no memory for the hello, or PEP_MAX_FRAME is too small";
  if (why) {
    munmap(at, sets * sizeof(pep_i_set));
    return snprintf(c->error, sizeof c->error, "%s", why), 0;
  }
  c->kept = (pep_i_set *)at;
  c->num_sets = sets;
  c->wall_ahead_ms = pep_i_wall_ahead_ms(pep_i_clock_ns(CLOCK_BOOTTIME));
  return 1;
}

const char *pep_page_error(pep_client *c) {
  if (!c->page_error[0] || c->page_told) return NULL;
  c->page_told = 1;
  return c->page_error;
}

/* Bytes of a check's body: the question and the tail that pep_i_write_check makes, but for the trace. */
static size_t pep_i_body_size(const pep_request *r) {
  return r->question_len + 4 + (r->has_not_after ? 8 : 0) + (r->has_min_revision ? 16 : 0);
}

/* Whether the trace goes with it: only where the frame has room, since it must not cost the answer. */
static int pep_i_traced(const pep_client *c, const pep_request *r) {
  return r->has_trace && pep_i_body_size(r) + sizeof r->trace <= (c->frame_limit ? c->frame_limit : 65536);
}

/* The frame of a check behind what `out` already holds: header, question, then the tail in the order of its flags. */
static int pep_i_write_check(pep_client *c, const pep_request *r, uint64_t id, uint64_t left_ns) {
  uint8_t tail[4 + 8 + 16 + 25], header[PEP_I_HEADER] = {0};
  size_t n = 4;
  uint64_t left_us = left_ns / 1000;
  int traced = pep_i_traced(c, r);
  pep_i_put_le(tail, left_us > UINT32_MAX ? UINT32_MAX : left_us ? left_us : 1, 4);
  if (r->has_not_after) pep_i_put_le(tail + n, r->not_after_ms, 8), n += 8;
  if (r->has_min_revision)
    pep_i_put_le(tail + n, r->min_boot, 8), pep_i_put_le(tail + n + 8, r->min_revision, 8), n += 16;
  if (traced) memcpy(tail + n, r->trace, sizeof r->trace), n += sizeof r->trace;
  pep_i_put_le(header, r->question_len + n, 4);
  pep_i_put_le(header + 4, r->question_len, 4);
  header[8] = 1;
  header[9] = PEP_I_OP_CHECK;
  pep_i_put_le(header + 10,
               1u | (r->has_not_after ? 2u : 0) | (r->has_min_revision ? 4u : 0) | (traced ? 8u : 0), 2);
  pep_i_put_le(header + 12, PEP_I_PARTITION, 4);
  pep_i_put_le(header + 16, id, 8);
  return pep_append(&c->out, header, sizeof header) &&
         pep_append(&c->out, r->frame.data + PEP_I_HEADER, r->question_len) && pep_append(&c->out, tail, n);
}

static int pep_i_exchange(pep_client *c, pep_verdict *v, const pep_request *r, uint64_t deadline_ns) {
  pep_cursor body;
  int got, whole, fresh = !c->is_open;
  size_t size = pep_i_body_size(r);
  if (c->frame_limit && size > c->frame_limit) { /* the daemon would close the connection for it */
    (void)pep_i_deny(v, PEP_BAD_REQUEST, "question: makes %zu bytes, more than the %zu of a frame: send less", size,
                     c->frame_limit);
    return PEP_I_DONE;
  }
  if (fresh && !pep_i_open(c, v, deadline_ns)) return PEP_I_FAILED;
  c->out.len = c->in.len = c->in_used = 0;
  uint64_t now = pep_i_now_ns(), id = c->next_id++;
  if (now >= deadline_ns) return pep_i_late(v);
  uint64_t asked_ns = c->kept ? pep_i_clock_ns(CLOCK_BOOTTIME) : 0;
  if ((fresh && !pep_append(&c->out, c->hello.data, c->hello.len)) || !pep_i_write_check(c, r, id, deadline_ns - now))
    return pep_i_deny(v, PEP_OVERLOADED, "no memory for the request");
  if ((got = pep_i_send(c, v, deadline_ns)) == PEP_I_FAILED) return got;
  whole = got == PEP_I_DONE;
  if (fresh) {
    if ((got = pep_i_reply(c, v, &body, PEP_I_OP_HELLO, 0, 1, deadline_ns)) != PEP_I_DONE) return got;
    if ((got = pep_i_read_hello(c, v, body)) != PEP_I_DONE) return got;
    pep_i_take_page(c);
  }
  got = pep_i_reply(c, v, &body, PEP_I_OP_CHECK, PEP_I_PARTITION, id, deadline_ns);
  if (got != PEP_I_DONE && got != PEP_I_ERROR) return got;
  if (c->in_used != c->in.len) return pep_i_deny(v, PEP_BAD_FRAME, "the daemon sent more than the reply");
  if (!whole && got == PEP_I_ERROR) return PEP_I_FAILED;
  if (!whole) return pep_i_deny(v, PEP_BAD_FRAME, "the daemon answered a question that was not sent whole");
  if (got == PEP_I_ERROR) return PEP_I_DONE;
  if (pep_i_now_ns() > deadline_ns) return pep_i_late(v);
  (void)pep_i_judge(c, v, body);
  pep_i_keep(c, v, r, body, asked_ns);
  return PEP_I_DONE;
}

int pep_check(pep_client *c, pep_verdict *v, pep_request *r, uint32_t deadline_ms) {
  memset(v, 0, sizeof *v);
  if (pep_i_recall(c, v, r)) return v->permit;
  uint64_t deadline_ns = pep_i_now_ns() + (uint64_t)(deadline_ms ? deadline_ms : PEP_DEADLINE_MS) * 1000000u;
  if (!c->path[0] || !c->hello.len)
    return pep_i_deny(v, PEP_BAD_REQUEST, "the client has no socket: call pep_connect first");
  if (!pep_request_seal(r)) return pep_i_deny(v, PEP_BAD_QUESTION, "%s", r->error);
  if (c->is_open && c->pid != (int)getpid())
    pep_i_close(c); /* the parent's connection: a child must not read from it */
  int kept = c->is_open, got = pep_i_exchange(c, v, r, deadline_ns);
  if (kept && got == PEP_I_GONE) {
    pep_i_close(c);
    memset(v, 0, sizeof *v);
    got = pep_i_exchange(c, v, r, deadline_ns);
  }
  /* after anything but a whole reply the stream may still hold one that belongs to this question */
  if (got != PEP_I_DONE) pep_i_close(c);
  return v->permit;
}

void pep_client_cleanup(pep_client *c) {
  pep_i_close(c);
  pep_i_forget(c);
  if (c->kept) munmap(c->kept, c->num_sets * sizeof(pep_i_set));
  pep_buffer_cleanup(&c->hello);
  pep_buffer_cleanup(&c->out);
  pep_buffer_cleanup(&c->in);
  memset(c, 0, sizeof *c);
}

/* ---- JSON text ---- */

int pep_json_string(pep_buffer *b, const char *text, size_t len) {
  const uint8_t *p = (const uint8_t *)text;
  char escape[8];
  if (!pep_i_byte(b, '"')) return 0;
  for (size_t i = 0, n; i < len; i += n) {
    n = pep_i_utf8_char(p + i, len - i);
    int c1 = n == 2 && p[i] == 0xc2 && p[i + 1] < 0xa0; /* terminals obey these, too */
    unsigned code = !n ? 0xfffd : c1 ? p[i + 1] : p[i];
    if (n && !c1 && p[i] >= 0x20 && p[i] != 0x7f && p[i] != '"' && p[i] != '\\') {
      if (!pep_append(b, p + i, n)) return 0;
      continue;
    }
    int size = code == '"' || code == '\\' ? snprintf(escape, sizeof escape, "\\%c", (char)code)
                                           : snprintf(escape, sizeof escape, "\\u%04x", code);
    if (!pep_append(b, escape, (size_t)size)) return 0;
    if (!n) n = 1;
  }
  return pep_i_byte(b, '"');
}

/* The shortest of three precisions that reads back as the same float64; always recognisable as a float. */
static int pep_i_json_float(pep_buffer *b, uint64_t bits) {
  double value;
  char text[40];
  memcpy(&value, &bits, sizeof value);
  locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
  if (!plain) return 0;
  locale_t old = uselocale(plain);
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  uselocale(old);
  freelocale(plain);
  return pep_append(b, text, strlen(text)) && (strpbrk(text, ".e") || pep_append(b, ".0", 2));
}

static int pep_i_json_out(pep_buffer *b, pep_cursor *c, int depth) {
  pep_i_token t;
  char text[24];
  if (!pep_i_token_next(c, &t) || depth > PEP_I_REPLY_DEPTH + 1) return 0;
  switch (t.kind) {
    case 'n': return pep_append(b, "null", 4);
    case 'b': return t.value ? pep_append(b, "true", 4) : pep_append(b, "false", 5);
    case 'u': return pep_append(b, text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)t.value));
    case 'i': return pep_append(b, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)t.value));
    case 'f': return pep_i_json_float(b, t.value);
    case 's': return pep_json_string(b, (const char *)t.data, (size_t)t.value);
    default: break;
  }
  if (!pep_i_byte(b, t.kind == 'm' ? '{' : '[')) return 0;
  for (uint64_t i = 0; i < t.value; i++) {
    pep_string key = {NULL, 0};
    if (i && !pep_i_byte(b, ',')) return 0;
    if (t.kind == 'm' && !(pep_i_want_str(c, &key) && pep_json_string(b, key.data, key.len) && pep_i_byte(b, ':')))
      return 0;
    if (!pep_i_json_out(b, c, depth + 1)) return 0;
  }
  return pep_i_byte(b, t.kind == 'm' ? '}' : ']');
}

int pep_json(pep_buffer *b, const uint8_t *msgpack, size_t len) {
  pep_cursor c = {msgpack, msgpack + len, 1};
  return pep_i_json_out(b, &c, 1) && c.data == c.end;
}

#ifdef __cplusplus
}
#endif
#endif /* PEPCORE_IMPLEMENTATION */
