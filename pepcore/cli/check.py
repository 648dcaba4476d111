"""`pepcore check`: ask one question from arguments, or many as JSON lines from standard input.

Promises: the exit code says the verdict (of many: the worst of them), and standard output carries it; one line
in, one answer out, at once, in order; a line that is not a question is answered with a deny that says why, and the
next line is read; exit 0 means that something was asked and permitted.
Never: discharges an obligation: `--handles` is the caller's promise to do so.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from .asking import ABOUT_QUESTIONS, Asked, add_question, connect, from_arguments, from_line
from .parser import Parser, Usage, whole
from .terminal import as_json, coloured, duration, paint, plain, say

if TYPE_CHECKING:
    from pepclient import Client, Verdict

LONGEST_LINE = 1 << 20

ABOUT = f"""{ABOUT_QUESTIONS}

Without SUBJECT it reads AuthZEN evaluation requests from standard input, one JSON object a line, with
`on_behalf_of` (a list of entities) beside `context` where the subject acts for others. Each gets one line,
`{{"decision": bool, "context": {{...}}}}`. The exit code is the worst: 3 if any was a fault, else 2, 1, 0;
without a single question it is 2."""

EXAMPLES = """  pepcore check User::alice read Document::roadmap && cat roadmap
  pepcore check Job::shop deploy Environment::production 'branch="main"' attempt=1
  pepcore check Agent::support read Customer::c-7 --on-behalf-of User::maria --handles redact,mask --json
  pepcore check --json -- "$subject" read "$document"   # words that come from elsewhere go behind `--`
  pepcore check < questions.jsonl > answers.jsonl"""


def configure(parser: Parser) -> None:
    add_question(parser)
    parser.add_argument(
        "--not-after",
        type=whole(0, 2**64 - 1, "Unix milliseconds"),
        metavar="MS",
        help="when the caller's own token ends, in Unix milliseconds: no permit outlives it",
    )
    parser.add_argument(
        "--traceparent",
        default="",
        metavar="TEXT",
        help="the caller's trace as in the HTTP header, for the daemon's record; one that is malformed is ignored",
    )
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    if not options.words:
        if sys.stdin is None or sys.stdin.isatty():
            raise Usage("check", "SUBJECT, ACTION and RESOURCE are needed, or JSON lines on standard input")
        if options.on_behalf_of:
            raise Usage("check", "--on-behalf-of belongs to one question: put `on_behalf_of` into each line instead")
        return _lines(options)
    asked = from_arguments(options, "check")
    client = connect(options, "check")
    verdict = ask(client, asked, options.not_after, options.traceparent)
    if options.json:
        say(as_json({"permit": verdict.permit, **told(verdict)}))
    else:
        _show(verdict)
    return code_of(verdict)


def ask(client: Client, asked: Asked, not_after: int | None, traceparent: str) -> Verdict:
    from pepclient import traced

    with traced(traceparent):
        return client.check(
            asked.subject,
            asked.action,
            asked.resource,
            asked.context,
            on_behalf_of=asked.on_behalf_of,
            not_after=None if not_after is None else not_after / 1000,
        )


def code_of(verdict: Verdict) -> int:
    return 0 if verdict.permit else 3 if verdict.fault else 1


def _lines(options: argparse.Namespace) -> int:
    client = connect(options, "check")
    asked_any, worst = False, 0
    source = sys.stdin.buffer
    while line := source.readline(LONGEST_LINE + 1):
        if not line.strip():
            continue
        asked_any = True
        try:
            if len(line) > LONGEST_LINE:
                while not line.endswith(b"\n") and (line := source.readline(LONGEST_LINE)):
                    pass
                raise ValueError(f"the line is longer than {LONGEST_LINE} bytes")
            asked = from_line(line)
        except ValueError as error:
            answer: dict[str, Any] = {"fault": "bad-question", "error": str(error)}
            say(as_json({"decision": False, "context": answer}))
            worst = max(worst, 2)
        else:
            verdict = ask(client, asked, options.not_after, options.traceparent)
            say(as_json({"decision": verdict.permit, "context": told(verdict)}))
            worst = max(worst, code_of(verdict))
        sys.stdout.flush()
    if not asked_any:  # 0 would be a permit that nobody gave: whatever writes the questions may have failed
        raise Usage("check", "no question on standard input: write one JSON object a line, or name SUBJECT, ACTION "
                    "and RESOURCE")  # fmt: skip
    return worst


def told(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values, in the words that `pep --json` uses, too."""
    from ..errors import NAMES

    fault = NAMES.get(verdict.fault, str(verdict.fault)) if verdict.fault else None
    return {
        "fault": fault,
        "error": verdict.error.removeprefix(f"{fault}: "),  # which stands beside it
        "reason": verdict.reason,
        "policies": list(verdict.policies),
        "obligations": [{"id": o.id, "type": o.type, "properties": o.properties} for o in verdict.obligations],
        "cached": verdict.cached,
        "lifetime_ms": left_ms(verdict),
        "id": str(verdict.number),
        "boot": str(verdict.boot),
        "revision": str(verdict.revision),
    }


def left_ms(verdict: Verdict) -> int:
    """Milliseconds that this verdict still holds."""
    return max(0, (verdict.expires_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1_000_000)


def whose(kind: str) -> str:
    """An obligation type with who discharges it. The caller would send a notice twice if he were told to."""
    from ..core.obligation import ENFORCER, SERVER

    return f"done by pepcore: {kind}" if kind in ENFORCER | SERVER else f"you must {kind}"


def _show(verdict: Verdict) -> None:
    if verdict.fault:
        sys.stderr.write(f"pepcore: no verdict, so deny: {plain(verdict.error)}\n")
        return
    word, colour = ("permit", "green") if verdict.permit else ("deny", "red")
    reason = verdict.reason or ("" if verdict.permit or verdict.policies else "no policy permits this")
    by = f" (by {', '.join(verdict.policies)})" if verdict.policies else ""
    say(paint(word, colour, coloured(sys.stdout)) + plain(f"{': ' if reason else ''}{reason}{by}"))
    if verdict.permit:  # a deny has no duties: the caller does nothing at all
        for duty in verdict.obligations:
            say(plain(f"  {whose(duty.type)} {as_json(duty.properties)}"))
        source = "from the cache" if verdict.cached else "decided now"
        left = left_ms(verdict)
        say(f"  {source}, holds {duration(left) if left else 'for this request only'}")
