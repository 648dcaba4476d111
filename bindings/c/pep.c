/* pep: one question from a script or a hook, answered by the exit status.
 *
 * Promises: exit 0 only for a permit, 1 for a deny, 2 for a mistake in the arguments (nothing was asked), 3 for a fault
 * (no daemon, no answer in time, a malformed reply: enforce it as a deny). `pep check ... && action` is therefore safe.
 * Help is status 0 only where it is asked for alone: a foreign word must not make it look like a permit.
 * It declares no obligations as handled, so a permit that carries one does not reach the script as a permit.
 * Never: guesses what an argument meant, asks twice, shows bytes from the daemon to a terminal unescaped.
 */
#define PEPCORE_IMPLEMENTATION
#include "pepcore.h"

enum { PERMIT = 0, DENY = 1, USAGE = 2, FAULT = 3 };

static const char help[] =
    "pep asks the policy enforcement core of this host whether an action may happen.\n"
    "\n"
    "usage: pep check SUBJECT ACTION RESOURCE [key=json ...] [options]\n"
    "       pep --help | pep check --help | pep --version\n"
    "\n"
    "SUBJECT and RESOURCE are written Type::id, the type ending at the first `::`.\n"
    "key=json adds a field to the context. The value is JSON: numbers and true as they are,\n"
    "strings in double quotes, so quote them from the shell too: 'dept=\"eng\"'.\n"
    "\n"
    "options\n"
    "  --on-behalf-of ENTITY  on whose behalf the subject acts; nearest first, up to 16 times\n"
    "  --not-after MS         when the caller's own token ends, in Unix milliseconds\n"
    "  --traceparent TEXT     the caller's trace, for the daemon's record; ignored where malformed\n"
    "  --deadline MS          how long to wait for a verdict (default 200)\n"
    "  --point NAME           the enforcement point to ask as\n"
    "  --socket PATH          where the daemon listens (default: PEPCORE_SOCKET, then\n"
    "                         $XDG_RUNTIME_DIR/pepcore/pepcore.sock, then /run/pepcore/pepcore.sock)\n"
    "  --json                 print the whole verdict as one line of JSON\n"
    "  --quiet                print nothing but mistakes in the arguments\n"
    "  --                     what follows is no option\n"
    "\n"
    "exit status\n"
    "  0  permit              1  deny\n"
    "  2  wrong arguments     3  fault: no verdict could be had; treat it as a deny\n"
    "\n"
    "examples\n"
    "  pep check User::alice read Document::roadmap && cat roadmap\n"
    "  pep check Service::ci deploy App::web 'branch=\"main\"' attempt=1 --on-behalf-of User::bob\n"
    "  pep check Agent::a7 call Tool::shell 'argv=[\"rm\",\"x\"]' --point agents --json\n"
    "  pep check --quiet -- \"$subject\" read \"$document\"   # words that come from elsewhere go behind --\n"
    "\n"
    "A permit says what was true when it was asked. Ask right before the action.\n";

typedef struct {
  const char *socket, *point;
  uint32_t deadline_ms;
  int json, quiet, num_names;
  const char *names[3];
  pep_request request;
} arguments;

/* Shows a text with everything escaped that a terminal might obey. */
static void put_text(pep_buffer *out, const char *text, size_t len) {
  size_t start = out->len;
  if (pep_json_string(out, text, len) && out->len - start >= 2) { /* without its quotes */
    memmove(out->data + start, out->data + start + 1, out->len - start - 2);
    out->len -= 2;
  }
}

static void put(pep_buffer *out, const char *text) { (void)pep_append(out, text, strlen(text)); }

static int usage(const char *before, const char *argument, const char *after) {
  pep_buffer out = {0};
  put(&out, "pep: ");
  put(&out, before);
  if (argument) put_text(&out, argument, strlen(argument));
  put(&out, after);
  put(&out, "\ntry `pep --help`\n");
  (void)!write(2, out.data, out.len);
  pep_buffer_cleanup(&out);
  return USAGE;
}

/* Plain decimal digits only: strtoull would take signs, spaces and wrap around. */
static int read_number(uint64_t *out, const char *text, uint64_t most) {
  *out = 0;
  if (!*text) return 0;
  for (; *text; text++) {
    uint64_t digit = (uint64_t)(*text - '0');
    if (*text < '0' || *text > '9' || *out > (most - digit) / 10) return 0;
    *out = *out * 10 + digit;
  }
  return 1;
}

static int asks_for_help(const char *argument) { return !strcmp(argument, "--help") || !strcmp(argument, "-h"); }

static int option(arguments *a, const char *name, const char *value) {
  uint64_t number;
  if (!strcmp(name, "--socket"))
    return a->socket = value, *value ? 0 : usage("--socket is empty: name a path", NULL, "");
  if (!strcmp(name, "--point")) return a->point = value, 0;
  if (!strcmp(name, "--on-behalf-of"))
    return pep_request_on_behalf_of(&a->request, value) ? 0 : usage("", a->request.error, "");
  if (!strcmp(name, "--deadline")) {
    if (!read_number(&number, value, 3600000) || !number)
      return usage("--deadline `", value, "` is not a number of milliseconds from 1 to 3600000");
    return a->deadline_ms = (uint32_t)number, 0;
  }
  if (!strcmp(name, "--traceparent")) return pep_request_traceparent(&a->request, value), 0;
  if (!read_number(&number, value, UINT64_MAX))
    return usage("--not-after `", value, "` is not a number of Unix milliseconds");
  return pep_request_not_after(&a->request, number), 0;
}

static int context(arguments *a, char *argument) {
  char *equals = strchr(argument, '=');
  if (!equals) return usage("`", argument, "` is not key=json: give a context field a value");
  if (equals == argument) return usage("`", argument, "` has no key before `=`");
  *equals = 0;
  if (pep_request_json(&a->request, PEP_CONTEXT, argument, equals + 1, strlen(equals + 1))) return 0;
  return usage("", a->request.error, "; a string needs quotes of its own: 'key=\"text\"'");
}

static int read_arguments(arguments *a, int argc, char **argv) {
  static const char *const valued[] = {"--socket",   "--point",     "--on-behalf-of",
                                       "--deadline", "--not-after", "--traceparent"};
  int options = 1, status;
  for (int i = 0; i < argc; i++) {
    char *arg = argv[i];
    if (!options || arg[0] != '-') {
      if (a->num_names < 3) a->names[a->num_names++] = arg;
      else if ((status = context(a, arg))) return status;
      continue;
    }
    if (!strcmp(arg, "--")) {
      options = 0;
      continue;
    }
    if (asks_for_help(arg))
      return usage("`", arg, "` asks for help only where it stands alone: put `--` before words that are no options");
    if (!strcmp(arg, "--json")) {
      a->json = 1;
      continue;
    }
    if (!strcmp(arg, "--quiet")) {
      a->quiet = 1;
      continue;
    }
    char *equals = strchr(arg, '=');
    size_t len = equals ? (size_t)(equals - arg) : strlen(arg), v;
    for (v = 0; v < sizeof valued / sizeof *valued; v++)
      if (strlen(valued[v]) == len && !memcmp(valued[v], arg, len)) break;
    if (v == sizeof valued / sizeof *valued)
      return usage("`", arg, "` is not an option: put `--` before a name that starts with `-`");
    if (!equals && i + 1 == argc) return usage("`", arg, "` needs a value");
    /* an empty variable in a script, no name: what is behind `--` must stay no option */
    if (!equals && !strcmp(argv[i + 1], "--"))
      return usage("`", arg, "` needs a value: write it behind `=` if it is `--`");
    if ((status = option(a, valued[v], equals ? equals + 1 : argv[++i]))) return status;
  }
  if (a->num_names < 3)
    return usage("SUBJECT, ACTION and RESOURCE are needed: pep check User::alice read Document::roadmap", NULL, "");
  if (!pep_request_ask(&a->request, a->names[0], a->names[1], a->names[2]) || !pep_request_seal(&a->request))
    return usage("", a->request.error, "");
  return 0;
}

static void put_number(pep_buffer *out, const char *name, uint64_t value) {
  char text[64];
  (void)pep_append(out, text, (size_t)snprintf(text, sizeof text, ",\"%s\":%llu", name, (unsigned long long)value));
}

/* 64-bit numbers go out as strings: many JSON readers would round them. */
static void put_wide(pep_buffer *out, const char *name, uint64_t value) {
  char text[64];
  (void)pep_append(out, text,
                   (size_t)snprintf(text, sizeof text, ",\"%s\":\"%llu\"", name, (unsigned long long)value));
}

/* The error without the name of the fault, which is shown beside it and with which a daemon's own texts begin. */
static const char *error_of(const pep_verdict *v) {
  const char *name = pep_fault_name(v->fault);
  size_t len = strlen(name);
  return strncmp(v->error, name, len) || strncmp(v->error + len, ": ", 2) ? v->error : v->error + len + 2;
}

static void show_json(pep_buffer *out, const pep_verdict *v) {
  pep_string policy;
  pep_obligation duty;
  put(out, v->permit ? "{\"permit\":true" : "{\"permit\":false");
  put(out, ",\"fault\":");
  if (v->fault) (void)pep_json_string(out, pep_fault_name(v->fault), strlen(pep_fault_name(v->fault)));
  else put(out, "null");
  put(out, ",\"error\":");
  (void)pep_json_string(out, error_of(v), strlen(error_of(v)));
  put(out, ",\"reason\":");
  (void)pep_json_string(out, v->reason.data, v->reason.len);
  put(out, ",\"policies\":[");
  pep_cursor each = v->policies;
  for (int first = 1; pep_next_policy(&each, &policy); first = 0) {
    if (!first) put(out, ",");
    (void)pep_json_string(out, policy.data, policy.len);
  }
  put(out, "],\"obligations\":[");
  each = v->obligations;
  for (int first = 1; pep_next_obligation(&each, &duty); first = 0) {
    put(out, first ? "{\"id\":" : ",{\"id\":");
    (void)pep_json_string(out, duty.id.data, duty.id.len);
    put(out, ",\"type\":");
    (void)pep_json_string(out, duty.type.data, duty.type.len);
    put(out, ",\"properties\":");
    (void)pep_json(out, duty.properties, duty.properties_len);
    put(out, "}");
  }
  put(out, v->cached ? "],\"cached\":true" : "],\"cached\":false");
  put_number(out, "lifetime_ms", v->lifetime_ms);
  put_wide(out, "id", v->id);
  put_wide(out, "boot", v->boot);
  put_wide(out, "revision", v->revision);
  put(out, "}\n");
}

static void show_text(pep_buffer *out, const pep_verdict *v) {
  pep_string policy;
  if (v->fault) {
    put(out, "pep: no verdict (");
    put(out, pep_fault_name(v->fault));
    put(out, "), so deny: ");
    put_text(out, error_of(v), strlen(error_of(v)));
  } else {
    put(out, v->permit ? "permit" : "deny");
    if (v->reason.len) put(out, ": "), put_text(out, v->reason.data, v->reason.len);
    pep_cursor each = v->policies;
    for (int first = 1; pep_next_policy(&each, &policy); first = 0) {
      put(out, first ? " (by " : ", ");
      put_text(out, policy.data, policy.len);
      if (!each.num) put(out, ")");
    }
    if (!v->permit && !v->reason.len && !v->policies.num) put(out, ": no policy permits this");
  }
  put(out, "\n");
}

static int write_all(int fd, const pep_buffer *out) {
  for (size_t at = 0; at < out->len;) {
    ssize_t n = write(fd, out->data + at, out->len - at);
    if (n < 0 && errno != EINTR) return 0;
    if (n > 0) at += (size_t)n;
  }
  return 1;
}

static int check(arguments *a) {
  pep_client client = {0};
  pep_verdict verdict;
  pep_buffer out = {0};
  if (!pep_connect(&client, a->socket, a->point, NULL, 0)) {
    usage("", client.error, "");
    pep_client_cleanup(&client);
    return USAGE;
  }
  int status = pep_check(&client, &verdict, &a->request, a->deadline_ms) ? PERMIT : verdict.fault ? FAULT : DENY;
  if (a->json) show_json(&out, &verdict);
  else show_text(&out, &verdict);
  /* whoever reads the answer did not get it: let the status not say permit */
  if (!a->quiet && !write_all(verdict.fault && !a->json ? 2 : 1, &out)) status = FAULT;
  pep_buffer_cleanup(&out);
  pep_client_cleanup(&client);
  return status;
}

/* Where a standard stream is closed, open something there, so that nothing else gets its number; for reading only, so
 * that an answer which nobody can get stays one that cannot be written. */
static int open_streams(void) {
  for (int fd = 0; fd <= 2; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd) return 0;
  return 1;
}

int main(int argc, char **argv) {
  arguments a;
  if (!open_streams()) return FAULT;
  memset(&a, 0, sizeof a);
  if ((argc == 2 && asks_for_help(argv[1])) || (argc == 3 && !strcmp(argv[1], "check") && asks_for_help(argv[2])))
    return fputs(help, stdout) < 0 || fflush(stdout) ? FAULT : 0;
  if (argc == 2 && !strcmp(argv[1], "--version")) return puts("pep " PEP_VERSION) < 0 || fflush(stdout) ? FAULT : 0;
  if (argc > 2 && asks_for_help(argv[1])) return usage("`", argv[1], "` stands alone: `pep --help`");
  if (argc < 2) return usage("a command is needed: check", NULL, "");
  if (strcmp(argv[1], "check")) return usage("`", argv[1], "` is not a command: there is only check");
  int status = read_arguments(&a, argc - 2, argv + 2);
  if (!status) status = check(&a);
  pep_request_cleanup(&a.request);
  return status;
}
