"""`pepcore explain`: why a question is decided as it is.

Promises: shows the verdict that `pepcore check` would get, the policies that decide with file, lines and source,
lifetime and what limits it, errors of policies, and whether the daemon had the answer in its cache; the exit code is
that of the verdict.
Never: enforces, takes a rate or sends a notice. What it prints is for people; programs that act ask `pepcore check`.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .asking import ABOUT_QUESTIONS, add_question, connect, from_arguments
from .parser import Parser
from .terminal import as_json, coloured, duration, paint, plain, say

ABOUT = f"""The daemon decides the question once more and shows what `pepcore check` would be answered, which policies
decided, where they stand, how long the answer may live and why, and what went wrong on the way. No rate
is taken and no notice is sent: a `rate` is shown as if it had room.
{ABOUT_QUESTIONS}"""

EXAMPLES = """  pepcore explain User::alice read Document::roadmap
  pepcore explain Job::shop deploy Environment::production 'branch="fix-1"'
  pepcore explain Agent::support read Customer::c-7 --on-behalf-of User::maria --json
  pepcore explain --json -- "$subject" read "$document"   # words that come from elsewhere go behind `--`"""


def configure(parser: Parser) -> None:
    add_question(parser)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    asked = from_arguments(options, "explain")
    client = connect(options, "explain")
    answer: dict[str, Any] = client.explain(
        asked.subject,
        asked.action,
        asked.resource,
        asked.context,
        on_behalf_of=asked.on_behalf_of,
    )
    if options.json:
        say(as_json(answer))
    else:
        _show(answer)
    verdict = answer["verdict"]
    return 3 if verdict["fault"] else 0 if verdict["permit"] is True else 1


def _show(answer: dict[str, Any]) -> None:
    colours = coloured(sys.stdout)
    verdict = answer["verdict"]
    permit = verdict["permit"] is True
    word = "fault, so deny" if verdict["fault"] else "permit" if permit else "deny"
    why = verdict["error"] or verdict["reason"]
    if not why and not answer.get("policies"):
        why = "no policy permits this"
    say(paint(word, "green" if permit else "red", colours) + plain(f": {why}" if why else ""))
    if answer.get("mode"):
        real = answer["enforced"]
        then = "permit" if real["permit"] is True else "deny"
        because = real["error"] or real["reason"]
        say(
            plain(f"the point's mode is `{answer['mode']}`; enforced it would be: {then}: {because}".removesuffix(": "))
        )
    for policy in answer.get("policies", ()):
        say(f"\n{plain(_place(policy))}")
        for n, line in enumerate(str(policy.get("source", "")).splitlines(), policy.get("lines", [1])[0]):
            say(paint(f"{n:>5} ", "dim", colours) + plain(line))
        for slot, value in policy.get("values", {}).items():
            say(plain(f"      {slot} is {value}"))
    for policy in answer.get("errors", ()):
        say("\n" + paint("failed ", "yellow", colours) + plain(_place(policy)))
        say(plain(f"      {policy.get('error', '')}"))
        say(plain(f"      {policy.get('meaning', '')}"))
    say("")
    if answer.get("permit") is True and not permit:
        blocked = str(answer["lifetime"]["why"]).startswith("a block ")  # the daemon's own words, no policy's
        say(f"policies    permit, and {'a block' if blocked else 'an obligation'} makes it a deny")
    for duty in answer.get("obligations", ()):
        say(plain(f"obligation  {duty['type']} {as_json(duty['properties'])}"))
    say(plain(f"lifetime    {duration(answer['lifetime']['ms'])}: {answer['lifetime']['why']}"))
    if "cached" in answer:
        say(f"cached      {'yes' if answer['cached'] else 'no'}")
    part = answer.get("slice", {})
    if part:
        say(f"looked at   {part.get('policies')} of {part.get('of')} policies")
    if answer.get("properties_not_used"):
        say("not used    properties that the question brought: the store holds the entity, or its type is not open")


def _place(policy: dict[str, Any]) -> str:
    first, last = (policy.get("lines") or [0, 0])[:2]
    lines = f"{first}" if first == last else f"{first}-{last}"
    return f"{policy.get('effect', '')} {policy.get('id', '')}  ({policy.get('file', '')}:{lines})"
