"""The text of Cedar policies: files, and the statements in them with file and line.

Promises: a statement begins after blanks and comments and ends with its `;`, found by a scanner that knows
strings and comments as Cedar's lexer does; text after the last `;`, an open string, bytes that are not
UTF-8 and a file that cannot be read are errors with file and line. A folder gives its `*.cedar` files in
the order of their names, and its `*.links.json` files; `acl.cedar` alone gives itself and `acl.links.json`
beside it. Never: looks inside a statement. Whether it is a policy is for `cedar_policies`, which counts
what Cedar found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, PolicyError

_MARK = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|//[^\r\n]*|[;{"]', re.DOTALL)
_CONDITION = re.compile(r"\)\s*(?:when|unless)\s*$")
_LEAD = re.compile(r"(?:\s+|//[^\r\n]*)*")


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy or template as text. `head` ends with its scope; `name` is the file's, for made ids."""

    file: str
    name: str
    line: int
    last_line: int
    text: str
    head: str


@dataclass(frozen=True, slots=True)
class PolicyFile:
    path: str
    name: str
    text: str


def read_files(policies: str | Path) -> tuple[list[PolicyFile], list[PolicyFile]]:
    """Return policy and links files of a path, or of Cedar text (a `str` with a `;` that names no file)."""
    if isinstance(policies, str):
        if not policies.strip() or (("\n" in policies or ";" in policies) and not _exists(policies)):
            return [PolicyFile("<text>", "text", policies)], []
        policies = Path(policies)
        if not _exists(policies):
            try:
                return [_read(policies)], []
            except PolicyError as e:
                raise PolicyError(e.file, 0, f"{e.reason}; text that is meant as Cedar must end with `;`") from None
    if policies.is_dir():
        files = sorted(policies.glob("*.cedar"))
        links = sorted(policies.glob("*.links.json"))
        if not files:
            raise PolicyError(str(policies), 0, "the folder has no *.cedar file; put the policies there")
    else:
        files = [policies]
        links = [p for p in [policies.with_name(policies.stem + ".links.json")] if p.exists()]
    return [_read(p) for p in files], [_read(p) for p in links]


def refuse_other(name: str, value: Any, kinds: Any, instead: str) -> None:
    """Raise ConfigError for an argument of another kind, before something deeper trips over it."""
    if not isinstance(value, kinds):
        raise ConfigError(f"{name}: must be {instead}, not `{type(value).__name__}`")


def _exists(name: str | Path) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def _read(path: Path) -> PolicyFile:
    return PolicyFile(str(path), path.name, read_text(path))


def read_text(path: str | Path) -> str:
    """The text of a file. Raises PolicyError, without a line where the file as a whole cannot be read."""
    try:
        data = Path(path).read_bytes()
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise PolicyError(str(path), line, "the file is not valid UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else e  # a NUL in it, say
        raise PolicyError(str(path), 0, f"cannot read: {why}; check the path and who may read it") from None


def statements(file: PolicyFile) -> Iterator[Statement]:
    """Yield the statements of a file. Text that does not end in `;`, or an open string, is an error."""
    text, at, line = file.text, 0, 1
    while True:
        start = _LEAD.match(text, at).end()  # type: ignore[union-attr]
        line += text.count("\n", at, start)
        if start == len(text):
            return
        end = brace = start
        for mark in _MARK.finditer(text, start):
            if mark.group() == ";":
                end = mark.end()
                break
            if mark.group() == "{" and brace == start:
                brace = mark.start()
            elif mark.group() == '"':
                where = line + text.count("\n", start, mark.start())
                raise PolicyError(file.path, where, "this string has no end; close it with a double quote")
        if end == start:
            raise PolicyError(file.path, line, "this policy has no end; close it with `;`")
        last = line + text.count("\n", start, end)
        condition = _CONDITION.search(text, start, brace)
        head = text[start : condition.start()] + ");" if condition else text[start:end]
        yield Statement(file.path, file.name, line, last, text[start:end], head)
        at, line = end, last
