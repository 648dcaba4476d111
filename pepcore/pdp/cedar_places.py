"""Where in a text of Cedar an error stands: the engine tells a reason and no position.

Promises: where the engine refuses a text that is cut after some line for the same reason, the first such line (a parser
stops at the first token that it cannot take); else the line of a word that the error names, if only one has it; else
the first line.
Never: reads Cedar's grammar, only its strings and comments; runs where a set loads.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable

from cedarpy import PolicySet

from ..errors import PolicyError

END = "unexpected end of input"
_HIDDEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|//[^\r\n]*', re.DOTALL)
_WORD = re.compile(r"`([^`]+)`|: ([^\s`]+)$")
_AT_LINE = re.compile(r"\bat line (\d+)")


def line_in_policy(text: str, reason: str) -> int:
    """How many lines after the first the error stands for which the engine refuses this statement, saying `reason`."""
    # a text that is cut and never closed has its first error hidden behind the one about its end
    return line_of(text, reason, lambda cut: PolicySet.from_str(f"{cut}\n;"))


def line_of(text: str, reason: str, parse: Callable[[str], object]) -> int:
    """How many lines after the first the error stands for which `parse` refuses this text, saying `reason`."""
    at = _AT_LINE.search(reason)
    if at:
        return int(at[1]) - 1
    if reason.endswith((END, "unexpected token `;`")):  # a statement has one `;`, its end
        return text.rstrip().count("\n")
    shown = _shown(text)
    ends = [n for n, character in enumerate(text) if character == "\n" and shown[n] == "\n"] + [len(text)]

    def refused(end: int) -> bool:
        try:
            parse(text[:end])
        except ValueError as e:
            return str(e) == reason
        return False

    stop = bisect_left(ends, True, key=refused)
    if stop < len(ends) - 1 or "unexpected token" in reason or "invalid token" in reason:
        return text.count("\n", 0, ends[stop - 1] + 1) if stop else 0
    return _line_of_word(shown, reason)


def line_of_annotation(text: str, name: str) -> int:
    """How many lines after the first `@name` stands."""
    at = re.search(rf"@\s*{re.escape(name)}\b", _shown(text))
    return text.count("\n", 0, at.start()) if at else 0


def together(errors: Iterable[PolicyError]) -> PolicyError:
    """One error that tells all of these, in the order of files and lines."""
    first, *others = sorted({place for error in errors for place in error.each})
    return PolicyError(*first, others)


def _shown(text: str) -> str:
    """The text with strings and comments blanked, line ends within them too."""
    return _HIDDEN.sub(lambda m: " " * len(m[0]), text)


def _line_of_word(shown: str, reason: str) -> int:
    if "missing" in reason:  # what it names is not there
        return 0
    lines = shown.split("\n")
    for quoted, last in _WORD.findall(reason):
        word = re.compile(rf"(?<![\w:]){re.escape(quoted or last)}(?![\w:])")
        found = [n for n, line in enumerate(lines) if word.search(line)]
        if len(found) == 1:
            return found[0]
    return 0
