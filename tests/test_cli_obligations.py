"""What `check` and `explain` say where a permit carries obligations, a lifetime, or cannot stand.

Everything runs through the installed program against a real daemon, whose config caps permits at 40 s.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pepcore as product

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode adds no folder by itself

from test_cli import ended, pepcore, started


def policy(name: str, *obligations: tuple[str, dict[str, object]], ttl: str = "", effect: str = "permit") -> str:
    """A policy over the resource of its own name."""
    rows = json.dumps([{"type": kind, "properties": properties, "id": kind} for kind, properties in obligations])
    notes = f"@id({json.dumps(name)}) @obligation({json.dumps(rows)})" + (f' @ttl("{ttl}")' if ttl else "")
    return f'{notes}\n{effect}(principal, action, resource == Doc::"{name}");\n'


REDACT = ("redact", {"fields": ["/a"]})
CAP = "the longest life of a permit (a daemon's `cache.permit`)"
RATE = ("rate", {"count": 1000, "per": "1s"})
NOTIFY = ("notify", {"to": "desk", "body": "read"})
POLICIES = "".join(
    [
        policy("plain"),
        policy("short", ttl="9s"),
        policy("long", ttl="9m"),
        policy("redacted", REDACT),
        policy("approved", ("approve", {})),
        policy("rated", RATE),
        policy("told", NOTIFY),
        policy("open", ("window", {"not_after": "2999-01-01T00:00:00Z"})),
        policy("closed", ("window", {"not_after": "2001-01-01T00:00:00Z"})),
        policy("forbidden", RATE, REDACT, effect="forbid"),
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the daemon of these tests listens on `pep.sock` and notes its notices in `notices`."""
    folder = tmp_path_factory.mktemp("obligations")
    (folder / "acl.cedar").write_text(POLICIES)
    config = '[policies]\npolicies = "acl.cedar"\n[cache]\npermit = "40s"\ndeny = "3s"\n[notify]\nfile = "notices"\n'
    (folder / "pepcore.toml").write_text(config)
    flags = ("--config", str(folder / "pepcore.toml"), "--socket", str(folder / "pep.sock"))
    daemon = started(*flags, socket=folder / "pep.sock", log=folder / "log")
    yield folder
    assert ended(daemon) == 0


def asked(folder: Path, command: str, doc: str, *more: str) -> tuple[int, str]:
    """Exit code and what was written."""
    done = pepcore(command, "User::app", "read", f"Doc::{doc}", *more, "--socket", str(folder / "pep.sock"))
    return done.returncode, done.stdout + done.stderr


# ---- check ----


@pytest.mark.parametrize("doc", ["rated", "told", "open"])
def test_check_asks_nobody_to_do_what_the_daemon_did(folder: Path, doc: str) -> None:
    code, text = asked(folder, "check", doc)
    assert code == 0
    assert "you must" not in text
    assert "  done by pepcore: " in text
    code, text = asked(folder, "check", "redacted", "--handles", "redact")
    assert (code, '  you must redact {"fields":["/a"]}\n' in text) == (0, True)


def test_a_deny_has_no_duties(folder: Path) -> None:
    code, text = asked(folder, "check", "forbidden", "--handles", "redact")
    assert (code, text) == (1, "deny (by forbidden)\n")


def test_check_says_where_a_permit_holds_for_one_request_only(folder: Path) -> None:
    assert asked(folder, "check", "rated")[1].endswith("decided now, holds for this request only\n")
    assert "holds for this request only" not in asked(folder, "check", "plain")[1]


# ---- explain ----


@pytest.mark.parametrize(
    ("doc", "handles", "code", "word"),
    [
        ("plain", "", 0, "permit"),
        ("approved", "", 3, "fault, so deny: obligation: obligations.approve: `approve` cannot be discharged yet"),
        ("approved", "approve", 3, "fault, so deny: obligation: obligations.approve: `approve` cannot be discharged"),
        ("redacted", "", 3, "fault, so deny: obligation: obligations.redact: `redact` is not among the types"),
        ("redacted", "redact", 0, "permit"),
        ("closed", "", 1, "deny: outside the window of `window`"),
        ("open", "", 0, "permit"),
        ("rated", "", 0, "permit"),
        ("told", "", 0, "permit"),
        ("forbidden", "", 1, "deny"),
        ("of nobody", "", 1, "deny: no policy permits this"),
    ],
)
def test_explain_tells_the_verdict_and_exits_by_it_as_check_does(
    folder: Path, doc: str, handles: str, code: int, word: str
) -> None:
    more = ("--handles", handles) if handles else ()
    told, text = asked(folder, "explain", doc, *more)
    assert (told, asked(folder, "check", doc, *more)[0]) == (code, code)
    assert text.startswith(word)
    assert ("permit, and an obligation makes it a deny" in text) == (doc in ("approved", "closed") or code == 3)
    data = json.loads(asked(folder, "explain", doc, *more, "--json")[1])
    assert data["verdict"]["permit"] == (code == 0)
    assert (data["verdict"]["fault"] is not None) == (code == 3)


@pytest.mark.parametrize(
    ("doc", "ms", "why"),
    [
        ("plain", 40_000, CAP),
        ("short", 9_000, "@ttl of policy `short`"),
        ("long", 40_000, CAP),
        ("open", 40_000, CAP),
        ("rated", 0, "`rate` is discharged for each request anew"),
        ("told", 0, "`notify` is discharged for each request anew"),
        ("approved", 0, "a fault is never kept"),
        ("of nobody", 3_000, "the life of a deny (a daemon's `cache.deny`)"),
    ],
)
def test_explain_tells_the_lifetime_in_milliseconds_and_what_ends_it(folder: Path, doc: str, ms: int, why: str) -> None:
    data = json.loads(asked(folder, "explain", doc, "--json")[1])
    assert data["lifetime"] == {"ms": ms, "why": why}
    assert f"lifetime    {ms // 1000} s: {why}\n" in asked(folder, "explain", doc)[1]


def test_an_explanation_sends_no_notice(folder: Path) -> None:
    def noted() -> int:
        return (folder / "notices").read_text().count("\n")

    asked(folder, "check", "told")
    before = noted()
    asked(folder, "explain", "told")
    assert noted() == before
    asked(folder, "check", "told")
    assert noted() == before + 1


def test_the_embedded_form_explains_by_the_verdict_too() -> None:
    with product.embedded(POLICIES, handles=["redact"]) as pep:
        for doc, fault, ms in (
            ("plain", None, 60_000),
            ("short", None, 9_000),
            ("redacted", None, 60_000),
            ("rated", None, 0),
            ("approved", "obligation", 0),
            ("told", "obligation", 0),  # an embedded form has nowhere to send it
            ("closed", None, 1_000),
        ):
            told = pep.explain("User::app", "read", f"Doc::{doc}")
            verdict = pep.check("User::app", "read", f"Doc::{doc}")
            assert (told["verdict"]["permit"], told["verdict"]["error"]) == (verdict.permit, verdict.error)
            assert (told["verdict"]["fault"], told["lifetime"]["ms"]) == (fault, ms)
