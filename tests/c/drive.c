/* drive: pepcore.h under the hand of a test. Commands on standard input, one answer line each on standard output.
 *
 * Words are separated by one space; `-` is the empty word, and words that carry text are hex.
 *
 *     connect PATH POINT HANDLE...      ok | error TEXT             a client, not yet a connection
 *     keep SLOTS                        ok | error TEXT             that it keeps answers
 *     page_error                        none | TEXT                 why it keeps none, once
 *     held                              N                           how many answers lie in its table
 *     hello                             HEX                         the frame that opens its connections
 *     new                               ok                          an empty request
 *     ask SUBJECT ACTION RESOURCE       ok | error TEXT
 *     entity PLACE TYPE ID | action NAME | behalf ENTITY
 *     string PLACE KEY VALUE | json PLACE KEY TEXT | int PLACE KEY N | bool PLACE KEY N
 *     not_after MS | min_revision BOOT REVISION
 *     seal                              HEX of the question | error TEXT
 *     frame ID MICROSECONDS             HEX of a check frame
 *     check MS                          one line of JSON, with `took_us`
 *     feed HEX                          the same for a reply that lies ready on a kept connection, id 2
 *     fork MS N                         N checks in a child, then one in the parent: a line each
 *     fork_after MS                     a check whose verdict is walked in a child: one line
 *     strict N MS                       ok: N checks and no system call, after which the driver has ended
 *     time N MS                         nanoseconds of each of N checks, of which none may be asked
 *     tojson HEX                        JSON text | error
 */
#define PEPCORE_IMPLEMENTATION
#include "pepcore.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static pep_client client;
static pep_request request;

static char *word(char **line) {
  char *start = *line, *end = start ? strchr(start, ' ') : NULL;
  if (end) *end = 0;
  *line = end ? end + 1 : NULL;
  return start ? start : (char *)"";
}

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

/* Decodes a hex word into memory of exactly its size and a NUL, so that a sanitizer sees any step outside. */
static char *unhex(char **line, size_t *out_len) {
  const char *hex = word(line);
  size_t len = *hex == '-' ? 0 : strlen(hex) / 2;
  char *out = (char *)malloc(len + 1);
  if (!out) abort();
  for (size_t i = 0; i < len; i++) out[i] = (char)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
  out[len] = 0;
  *out_len = len;
  return out;
}

static void show_hex(const uint8_t *data, size_t len) {
  for (size_t i = 0; i < len; i++) printf("%02x", data[i]);
  putchar('\n');
}

static void result(int ok, const char *error) {
  pep_buffer text = {0};
  if (!ok) pep_json_string(&text, error, strlen(error));
  printf(ok ? "ok\n" : "error %.*s\n", (int)text.len, (const char *)text.data);
  pep_buffer_cleanup(&text);
}

static void text(pep_buffer *out, const char *format, ...) {
  char line[128];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (!pep_append(out, line, (size_t)n)) abort();
}

static void show_verdict(int returned, const pep_verdict *v, uint64_t took_ns) {
  pep_buffer out = {0};
  pep_string policy;
  pep_obligation duty;
  if (returned != v->permit || (v->fault != 0) != (v->error[0] != 0)) abort();
  text(&out, "{\"permit\":%s,\"cached\":%s,\"fault\":%d,", v->permit ? "true" : "false", v->cached ? "true" : "false", v->fault);
  text(&out, "\"lifetime_ms\":%u,\"id\":%llu,", v->lifetime_ms, (unsigned long long)v->id);
  text(&out, "\"boot\":%llu,\"revision\":%llu,", (unsigned long long)v->boot, (unsigned long long)v->revision);
  text(&out, "\"took_us\":%llu,\"error\":", (unsigned long long)took_ns / 1000);
  pep_json_string(&out, v->error, strlen(v->error));
  text(&out, ",\"reason\":");
  pep_json_string(&out, v->reason.data, v->reason.len);
  text(&out, ",\"policies\":[");
  pep_cursor each = v->policies;
  for (int i = 0; pep_next_policy(&each, &policy); i++) {
    if (i) text(&out, ",");
    pep_json_string(&out, policy.data, policy.len);
  }
  if (each.num) abort();
  text(&out, "],\"obligations\":[");
  each = v->obligations;
  for (int i = 0; pep_next_obligation(&each, &duty); i++) {
    text(&out, i ? ",[" : "[");
    pep_json_string(&out, duty.id.data, duty.id.len);
    text(&out, ",");
    pep_json_string(&out, duty.type.data, duty.type.len);
    text(&out, ",");
    if (!pep_json(&out, duty.properties, duty.properties_len)) abort();
    text(&out, "]");
  }
  if (each.num) abort();
  text(&out, "]}\n");
  fwrite(out.data, 1, out.len, stdout);
  pep_buffer_cleanup(&out);
}

static void check(uint32_t deadline_ms) {
  pep_verdict v;
  uint64_t start = pep_i_now_ns();
  int returned = pep_check(&client, &v, &request, deadline_ms);
  show_verdict(returned, &v, pep_i_now_ns() - start);
}

static void feed(const char *reply, size_t len) {
  int ends[2], room = 1 << 20;
  pep_i_close(&client);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) abort();
  setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  if (send(ends[1], reply, len, MSG_DONTWAIT) != (ssize_t)len || shutdown(ends[1], SHUT_WR)) abort();
  client.fd = ends[0];
  client.is_open = 1;
  client.pid = (int)getpid();
  client.next_id = 2;
  check(1000);
  pep_i_close(&client);
  close(ends[1]);
}

/* A child that did not come to its end has said nothing: say so, for whoever waits for its line. */
static void wait_for(pid_t child) {
  int status;
  if (waitpid(child, &status, 0) != child || status) puts("the child failed");
}

static void forked(uint32_t deadline_ms, int num) {
  fflush(stdout);
  pid_t child = fork();
  if (!child) {
    while (num--) check(deadline_ms);
    fflush(stdout);
    _exit(0);
  }
  wait_for(child);
  check(deadline_ms);
}

static void forked_after(uint32_t deadline_ms) {
  pep_verdict v;
  int returned = pep_check(&client, &v, &request, deadline_ms);
  fflush(stdout);
  pid_t child = fork();
  if (!child) {
    show_verdict(returned, &v, 0);
    fflush(stdout);
    _exit(0);
  }
  wait_for(child);
}

/* The kernel kills this process at any other call than write and exit. (Strict mode would forbid the vDSO's clock, too.) */
static void strict(long num, uint32_t deadline_ms) {
  pep_verdict v;
  struct timespec t;
  int permits = 0;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) abort();
  clock_gettime(CLOCK_BOOTTIME, &t);
  for (long i = 0; i < num; i++) permits += pep_check(&client, &v, &request, deadline_ms);
  (void)!write(1, permits == num ? "ok\n" : "no\n", 3);
  syscall(SYS_exit, 0);
}

static void held(void) {
  size_t num = 0;
  for (size_t i = 0; client.kept && i < client.num_sets * PEP_I_WAYS; i++)
    num += client.kept[i / PEP_I_WAYS].ways[i % PEP_I_WAYS].question_len != 0;
  printf("%zu\n", num);
}

static void timed(long num, uint32_t deadline_ms) {
  pep_verdict v;
  uint64_t start = pep_i_now_ns();
  for (long i = 0; i < num; i++)
    if (!pep_check(&client, &v, &request, deadline_ms) || client.in_used) abort();
  printf("%.1f\n", (double)(pep_i_now_ns() - start) / (double)num);
}

static void page_error(void) {
  const char *why = pep_page_error(&client);
  puts(why ? why : "none");
}

static void connect_as(char *line) {
  char *path = word(&line), *handles[200] = {NULL};
  size_t len, num = 0;
  char *point = unhex(&line, &len);
  while (line && num < 200) handles[num++] = unhex(&line, &len);
  result(pep_connect(&client, *path == '-' ? NULL : path, point, (const char *const *)handles, num), client.error);
  free(point);
  while (num) free(handles[--num]);
}

static void member(const char *name, char *line) {
  int place = atoi(word(&line)), ok;
  size_t key_len, value_len;
  char *key = unhex(&line, &key_len), *value = NULL;
  if (!strcmp(name, "int") || !strcmp(name, "bool")) {
    int64_t number = strtoll(word(&line), NULL, 10);
    ok = *name == 'i' ? pep_request_int(&request, place, key, number) : pep_request_bool(&request, place, key, (int)number);
  } else {
    value = unhex(&line, &value_len);
    char *exact = (char *)malloc(value_len ? value_len : 1); /* without the NUL: a length is a length */
    if (!exact) abort();
    memcpy(exact, value, value_len);
    ok = (*name == 's' ? pep_request_string : pep_request_json)(&request, place, key, exact, value_len);
    free(exact);
  }
  result(ok, request.error);
  free(key);
  free(value);
}

static void name(const char *command, char *line) {
  size_t len;
  int place = *command == 'e' ? atoi(word(&line)) : 0, ok;
  char *a = unhex(&line, &len), *b = unhex(&line, &len);
  size_t b_len = len;
  char *c = unhex(&line, &len);
  if (!strcmp(command, "ask")) ok = pep_request_ask(&request, a, b, c);
  else if (!strcmp(command, "entity")) ok = pep_request_entity(&request, place, a, b, b_len);
  else if (!strcmp(command, "action")) ok = pep_request_action(&request, a);
  else ok = pep_request_on_behalf_of(&request, a);
  result(ok, request.error);
  free(a);
  free(b);
  free(c);
}

static void obey(char *line) {
  const char *command = word(&line);
  size_t len;
  if (!strcmp(command, "connect")) connect_as(line);
  else if (!strcmp(command, "hello")) show_hex(client.hello.data, client.hello.len);
  else if (!strcmp(command, "keep")) result(pep_client_keep(&client, strtoull(word(&line), NULL, 10)), client.error);
  else if (!strcmp(command, "page_error")) page_error();
  else if (!strcmp(command, "held")) held();
  else if (!strcmp(command, "new")) pep_request_cleanup(&request), result(1, "");
  else if (strstr("ask entity action behalf", command)) name(command, line);
  else if (strstr("string json int bool", command)) member(command, line);
  else if (!strcmp(command, "not_after")) pep_request_not_after(&request, strtoull(word(&line), NULL, 10)), result(1, "");
  else if (!strcmp(command, "min_revision")) {
    uint64_t boot = strtoull(word(&line), NULL, 10);
    pep_request_min_revision(&request, boot, strtoull(word(&line), NULL, 10));
    result(1, "");
  } else if (!strcmp(command, "seal")) {
    if (pep_request_seal(&request)) show_hex(request.frame.data + PEP_I_HEADER, request.question_len);
    else result(0, request.error);
  } else if (!strcmp(command, "frame")) {
    uint64_t id = strtoull(word(&line), NULL, 10);
    client.out.len = 0;
    if (!pep_request_seal(&request) || !pep_i_write_check(&client, &request, id, strtoull(word(&line), NULL, 10) * 1000))
      result(0, request.error);
    else show_hex(client.out.data, client.out.len);
  } else if (!strcmp(command, "check")) check((uint32_t)atoi(word(&line)));
  else if (!strcmp(command, "time")) {
    long num = atol(word(&line));
    timed(num, (uint32_t)atoi(word(&line)));
  } else if (!strcmp(command, "strict")) {
    long num = atol(word(&line));
    strict(num, (uint32_t)atoi(word(&line)));
  } else if (!strcmp(command, "fork_after")) forked_after((uint32_t)atoi(word(&line)));
  else if (!strcmp(command, "fork")) {
    uint32_t deadline_ms = (uint32_t)atoi(word(&line));
    forked(deadline_ms, line ? atoi(word(&line)) : 1);
  }
  else {
    char *data = unhex(&line, &len);
    pep_buffer out = {0};
    if (!strcmp(command, "feed")) feed(data, len);
    else if (strcmp(command, "tojson")) abort();
    else if (!pep_json(&out, (const uint8_t *)data, len)) puts("error");
    else printf("%.*s\n", (int)out.len, (const char *)out.data);
    pep_buffer_cleanup(&out);
    free(data);
  }
}

int main(void) {
  char *line = NULL;
  size_t cap = 0;
  ssize_t n;
  while ((n = getline(&line, &cap, stdin)) > 0) {
    if (line[n - 1] == '\n') line[n - 1] = 0;
    obey(line);
    fflush(stdout);
  }
  free(line);
  pep_request_cleanup(&request);
  pep_client_cleanup(&client);
  return 0;
}
