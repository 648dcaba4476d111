"""The embedded form: the same answers as the daemon, without one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import pytest
from pepclient import questions

import pepcore
from pepcore import Denied, Embedded, Entity, PolicyError
from tests.conftest import POLICIES


@pytest.fixture
def pep() -> Embedded:
    return pepcore.embedded(POLICIES, handles=["mask"])


def test_the_first_answer_is_decided_and_the_next_is_the_same_from_the_table(pep: Embedded) -> None:
    first = pep.check("User::alice", "read", "Document::1")
    again = pep.check("User::alice", "read", "Document::1")
    assert (first.permit, first.cached, first.reason, first.policies) == (True, False, "alice reads", ("readers",))
    assert (again.permit, again.cached, again.id) == (True, True, first.id)
    assert again.expires > time.clock_gettime(time.CLOCK_BOOTTIME)
    assert not pep.check("User::mallory", "read", "Document::1")


def test_a_forbid_denies_where_its_neighbour_permits(pep: Embedded) -> None:
    verdict = pep.check("User::alice", "read", "Document::secret")
    assert (verdict.permit, verdict.reason, verdict.error) == (False, "nobody reads the secret", "")
    assert pep.check("User::alice", "read", "Document::secre")


@pytest.mark.parametrize("alice", ["User::alice", Entity("User", "alice"), {"type": "User", "id": "alice"}])
def test_every_form_of_an_entity_asks_the_same(pep: Embedded, alice: Any) -> None:
    assert pep.check(alice, {"name": "read"}, {"type": "Document", "id": "1", "properties": {}})


@pytest.mark.parametrize(
    ("question", "place"),
    [
        (("alice", "read", "Document::1"), "subject"),
        (("User::alice", "", "Document::1"), "action.name"),
        (("User::alice", "read", None), "resource"),
        (("User::alice", "read", {"type": "Document", "name": "1"}), "resource"),
        (("User::alice", "read", "Document::1", {"at": datetime.now(UTC)}), "context.at"),
        (("User::alice", "read", "Document::1", {"x": float("nan")}), "context.x"),
        (("User::alice", "read", "Document::1", {1: 2}), "context"),
        (("User::alice", "read", "Document::1", [1]), "context"),
        (("User::\ud800", "read", "Document::1"), "subject"),
    ],
)
def test_a_malformed_question_denies_and_says_what_is_wrong(
    pep: Embedded, question: tuple[Any, ...], place: str
) -> None:
    verdict = pep.check(*question)
    assert not verdict
    assert verdict.error.startswith(f"bad-question: {place}")
    assert pep.check("User::alice", "read", "Document::1", {})


def test_the_types_promise_the_mappings_that_are_taken_and_no_others(pep: Embedded) -> None:
    for alias in (questions.EntityLike, questions.ActionLike, questions.QuestionLike):
        assert dict[str, Any] in get_args(alias)
    assert questions.Context == dict[str, Any]
    alice = {"type": "User", "id": "alice"}
    assert pep.check(alice, "read", "Document::1", {})
    assert "must be" in pep.check(MappingProxyType(alice), "read", "Document::1").error  # type: ignore[arg-type]
    for stub in Path(pepcore.__file__).parent.glob("core/*.pyi"):
        assert "Mapping" not in stub.read_text()


def test_the_context_decides(pep: Embedded) -> None:
    assert pep.check("Service::web", "connect", "Host::db", {"port": 22})
    assert not pep.check("Service::web", "connect", "Host::db", {"port": 23})
    assert not pep.check("Service::web", "connect", "Host::db", {"port": True})
    assert not pep.check("Service::web", "connect", "Host::db", {"port": 22.0})
    assert not pep.check("Service::web", "connect", "Host::db")
    assert pep.check("Service::web", "connect", "Host::db", {"port": 22}).cached


def test_the_chain_decides(pep: Embedded) -> None:
    assert pep.check("Agent::a7", "read", "Document::1", on_behalf_of=["User::alice"])
    assert not pep.check("Agent::a7", "read", "Document::1", on_behalf_of=["User::bob"])
    assert not pep.check("Agent::a7", "read", "Document::1")
    verdict = pep.check("Agent::a7", "read", "Document::1", on_behalf_of="User::alice")
    assert verdict.error.startswith("bad-question: on_behalf_of")


def test_an_obligation_is_applied_and_one_that_is_not_handled_denies(pep: Embedded) -> None:
    for _ in range(2):
        verdict = pep.check("User::bob", "read", "Document::1")
        assert verdict.apply({"ssn": "123456789"}) == {"ssn": "****6789"}
    verdict = pepcore.embedded(POLICIES).check("User::bob", "read", "Document::1")
    assert not verdict
    assert verdict.error.startswith("obligation: ")
    with pytest.raises(Denied):
        verdict.apply({"ssn": "123456789"})


def test_a_rate_is_taken_by_each_question_and_never_served_from_the_table(pep: Embedded) -> None:
    verdicts = [pep.check("Service::job", "run", "Job::1") for _ in range(3)]
    assert [v.permit for v in verdicts] == [True, True, False]
    assert not any(v.cached or v.expires for v in verdicts)


def test_no_answer_outlives_the_callers_own_permission(pep: Embedded) -> None:
    pep.check("User::alice", "read", "Document::1")
    soon = time.time() + 5
    verdict = pep.check("User::alice", "read", "Document::1", not_after=soon)
    assert verdict
    assert verdict.expires <= time.clock_gettime(time.CLOCK_BOOTTIME) + 5
    fresh = pep.check("User::alice", "read", "Document::2", not_after=datetime.now(UTC) + timedelta(seconds=5))
    assert 0 < fresh.expires <= time.clock_gettime(time.CLOCK_BOOTTIME) + 5
    for past in (time.time() - 1, datetime.now(UTC) - timedelta(seconds=1), 0, -5):
        assert pep.check("User::alice", "read", "Document::1", not_after=past).error.startswith("expired")
    for wrong in (datetime.now(), "tomorrow", True, float("nan")):
        error = pep.check("User::alice", "read", "Document::1", not_after=wrong).error  # type: ignore[arg-type]
        assert error.startswith("bad-request: not_after")


def test_an_answer_is_never_older_than_min_revision(pep: Embedded) -> None:
    verdict = pep.check("User::alice", "read", "Document::1")
    assert pep.check("User::alice", "read", "Document::1", min_revision=verdict)
    ahead = (verdict.boot, verdict.revision + 1)
    assert pep.check("User::alice", "read", "Document::1", min_revision=ahead).error.startswith("stale")
    assert pep.check("User::alice", "read", "Document::1", min_revision=(verdict.boot ^ 1, 99))
    pep.reload(POLICIES)
    assert pep.check("User::alice", "read", "Document::1", min_revision=ahead)
    error = pep.check("User::alice", "read", "Document::1", min_revision=7).error  # type: ignore[arg-type]
    assert error.startswith("bad-request: min_revision")


def test_a_reload_ends_every_older_answer_and_a_broken_set_changes_nothing(pep: Embedded) -> None:
    assert pep.check("User::alice", "read", "Document::1")
    with pytest.raises(PolicyError):
        pep.reload("permit(principal")
    assert pep.check("User::alice", "read", "Document::1").cached
    pep.reload('@id("none") forbid(principal, action, resource);')
    verdict = pep.check("User::alice", "read", "Document::1")
    assert (verdict.permit, verdict.policies, verdict.revision) == (False, ("none",), 1)


def test_no_answer_of_the_old_policies_is_served_after_a_reload_returned(pep: Embedded) -> None:
    stop = threading.Event()
    threads = [threading.Thread(target=_ask_until, args=(pep, stop, n)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        for i in range(50):
            permit = i % 2 == 1
            word = "permit" if permit else "forbid"
            pep.reload(f"{word}(principal, action, resource);")
            for j in range(20):
                assert pep.check("User::alice", "read", f"Document::{j}").permit is permit
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ask_until(pep: Embedded, stop: threading.Event, seed: int) -> None:
    i = seed
    while not stop.is_set():
        i += 7
        pep.check("User::alice", "read", f"Document::{i % 20}")


def test_a_batch_ends_as_its_semantic_says(pep: Embedded) -> None:
    yes, no = ("User::alice", "read", "Document::1"), ("User::mallory", "read", "Document::1")
    broken = ("mallory", "read", "Document::1")
    authzen = {
        "subject": {"type": "User", "id": "alice"}, "action": {"name": "read"},
        "resource": {"type": "Document", "id": "9"},
    }  # fmt: skip

    def ask(questions: list[Any], semantic: Any = "execute_all") -> list[bool]:
        return [v.permit for v in pep.check_many(questions, semantic)]

    assert ask([yes, no, broken, authzen]) == [True, False, False, True]
    assert ask([yes, no, yes], "deny_on_first_deny") == [True, False]
    assert ask([yes, broken, yes], "deny_on_first_deny") == [True, False]
    assert ask([no, broken, yes, no], "permit_on_first_permit") == [False, False, True]
    assert ask([]) == []
    assert ask([yes], "whatever") == [False]
    assert ask(7) == [False]  # type: ignore[arg-type]


def test_enforce_returns_the_verdict_or_raises_denied(pep: Embedded) -> None:
    assert pep.enforce("User::alice", "read", "Document::1").permit
    with pytest.raises(Denied, match="nobody reads the secret") as caught:
        pep.enforce("User::alice", "read", "Document::secret")
    assert caught.value.verdict.policies == ("never",)


def test_a_guarded_function_runs_only_if_permitted(pep: Embedded) -> None:
    ran: list[str] = []

    @pep.guard(lambda user: f"User::{user}", "read", lambda document: f"Document::{document}")
    def read(document: str, user: str = "alice") -> str:
        """Read a document."""
        ran.append(document)
        return document

    assert read("1") == "1"
    assert read.__name__ == "read"
    assert read.__doc__ == "Read a document."
    with pytest.raises(Denied):
        read("secret")
    with pytest.raises(Denied):
        read("1", user="mallory")
    with pytest.raises(TypeError):
        read()  # type: ignore[call-arg]
    assert ran == ["1"]


def test_a_guard_can_apply_obligations_to_the_result(pep: Embedded) -> None:
    @pep.guard("User::bob", "read", "Document::1", apply=True)
    def read() -> dict[str, str]:
        return {"ssn": "123456789"}

    assert read() == {"ssn": "****6789"}


def test_a_guarded_coroutine_function_stays_one(pep: Embedded) -> None:
    ran: list[str] = []

    @pep.guard("User::bob", "read", lambda name: f"Document::{name}", apply=True)
    async def read(name: str) -> dict[str, str]:
        ran.append(name)
        return {"ssn": "123456789"}

    assert asyncio.iscoroutinefunction(read)
    assert asyncio.run(read("1")) == {"ssn": "****6789"}
    with pytest.raises(Denied):
        asyncio.run(read("secret"))
    assert ran == ["1"]


def test_a_question_that_cannot_be_computed_is_denied(pep: Embedded) -> None:
    @pep.guard("User::alice", "read", lambda document: document["id"])
    def read(document: dict[str, str]) -> bool:
        return True

    assert read({"id": "Document::1"})
    with pytest.raises(Denied, match="resource: cannot be computed") as caught:
        read({})
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_guard_that_names_no_parameter_of_its_function_is_refused_at_once(pep: Embedded) -> None:
    with pytest.raises(TypeError, match="`doc`"):

        @pep.guard("User::alice", "read", lambda doc: doc)
        def read(document: str) -> None: ...


def test_a_guard_that_takes_an_argument_by_position_only_is_refused_at_once(pep: Embedded) -> None:
    def read(document: str, /) -> str:
        return document

    for place in (lambda document, /: document, lambda *document: document[0]):
        with pytest.raises(TypeError, match="`resource` takes `document` by position only"):
            pep.guard("User::alice", "read", place)(read)
    assert pep.guard("User::alice", "read", lambda document: f"Document::{document}")(read)("1") == "1"
    # One that the function does not have keeps its default.
    assert pep.guard("User::alice", "read", lambda other="1", /: f"Document::{other}")(read)("2") == "2"


def test_a_guarded_class_is_its_constructor_whatever_its_instances_are(pep: Embedded) -> None:
    class Job:
        async def __call__(self) -> str:
            return "done"

    guarded = pep.guard("User::alice", "read", "Document::1")(Job)
    assert isinstance(guarded(), Job)
    with pytest.raises(Denied):
        pep.guard("User::eve", "read", "Document::1")(Job)()


def test_a_guarded_object_that_is_called_as_a_coroutine_function_is_awaited(pep: Embedded) -> None:
    class Reader:
        async def __call__(self, document: str) -> dict[str, str]:
            return {"ssn": "123456789"}

    for reader in (Reader(), partial(Reader()), Reader().__call__):
        read = pep.guard("User::bob", "read", lambda document: f"Document::{document}", apply=True)(reader)
        assert asyncio.iscoroutinefunction(read)
        assert asyncio.run(read("1")) == {"ssn": "****6789"}
        with pytest.raises(Denied):
            asyncio.run(read("secret"))

    class Plain:
        def __call__(self, document: str) -> dict[str, str]:
            return {"ssn": "123456789"}

    assert pep.guard("User::bob", "read", "Document::1", apply=True)(Plain())("1") == {"ssn": "****6789"}


def test_a_forked_child_starts_empty_with_counters_of_its_own(pep: Embedded) -> None:
    before = pep.check("User::alice", "read", "Document::1")

    def child() -> bool:
        nothing = pep.stats()
        first = pep.check("User::alice", "read", "Document::1")
        again = pep.check("User::alice", "read", "Document::1")
        counts = [(s["hits"], s["misses"], s["evictions"], s["entries"]) for s in (nothing, pep.stats())]
        fresh = not first.cached and again.cached and first.boot != before.boot
        return first.permit and fresh and counts == [(0, 0, 0, 0), (1, 1, 0, 1)]

    assert in_child(child)
    assert pep.check("User::alice", "read", "Document::1").cached


def test_a_child_forked_while_another_thread_decides_does_not_wait_for_it(pep: Embedded) -> None:
    stop = threading.Event()
    threads = [threading.Thread(target=_ask_anew, args=(pep, stop, n)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert in_child(lambda: bool(pep.check("User::alice", "read", "Document::1")))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ask_anew(pep: Embedded, stop: threading.Event, seed: int) -> None:
    i = seed
    while not stop.is_set():
        i += 2
        pep.check("User::alice", "read", f"Document::{i}")


def in_child(work: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_question_asked_while_its_own_thread_decides_is_denied_in_time(pep: Embedded) -> None:
    with pep._lock:
        began = time.monotonic()
        verdict = pep.check("User::alice", "read", "Document::1")
        took = time.monotonic() - began
    assert verdict.error.startswith("deadline")
    assert 0.15 < took < 2
    assert pep.check("User::alice", "read", "Document::1")


def test_an_interrupted_question_is_decided_when_it_is_asked_again(pep: Embedded) -> None:
    decide = pep._pdp.decide

    def interrupted(*_: Any) -> Any:
        pep._pdp.decide = decide  # type: ignore[method-assign]
        raise KeyboardInterrupt

    pep._pdp.decide = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        pep.check("User::alice", "read", "Document::1")
    assert pep.check("User::alice", "read", "Document::1")
    assert not pep.check("User::eve", "read", "Document::1")


def test_files_are_read_and_a_wrong_one_raises(tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text('permit(principal in Group::"staff", action, resource);')
    (tmp_path / "e.json").write_text(
        '[{"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]}]'
    )
    with pepcore.embedded(tmp_path, tmp_path / "e.json") as pep:
        assert pep.check("User::alice", "read", "Document::1")
        assert not pep.check("User::bob", "read", "Document::1")
    with pytest.raises(pepcore.ConfigError):
        pepcore.embedded(tmp_path / "none.cedar")
    for wrong in ("mask", 5, ["\ud800"], [""], [7]):
        with pytest.raises(ValueError, match="handles"):
            pepcore.embedded(tmp_path, handles=wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"policies": None}, "policies: must be .* not `NoneType`"),
        ({"policies": b"x"}, "policies: must be .* not `bytes`"),
        ({"policies": []}, "policies: must be .* not `list`"),
        ({"entities": {}}, "entities: must be .* not `dict`"),
        ({"entities": ("a", "b")}, "entities: must be .* not `tuple`"),
        ({"schema": 5}, "schema: must be .* not `int`"),
        ({"schema": "a\0b"}, "cannot read"),
        ({"entities": "a\0b"}, "cannot read"),
        ({"entities": "x" * 5000}, "cannot read"),
        ({"policies": "permit(principal, action, resource)"}, "text that is meant as Cedar must end with `;`"),
        ({"policies": "permit(principal, action, resource)" + " " * 5000}, "must end with `;`"),
        ({"policies": "a\0b"}, "cannot read: embedded null byte"),
    ],
)
def test_an_argument_that_cannot_be_is_a_config_error_that_names_it(wrong: dict[str, Any], says: str) -> None:
    right: dict[str, Any] = {"policies": "permit(principal, action, resource);", "entities": [], "schema": None}
    with pepcore.embedded(**right) as pep:
        for make in (pepcore.embedded, pep.reload):
            with pytest.raises(pepcore.ConfigError, match=says):
                make(**{**right, **wrong})
        assert pep.check("User::alice", "read", "Document::1")


def test_stats_and_explain_tell_what_happened(pep: Embedded) -> None:
    pep.check("User::alice", "read", "Document::1")
    pep.check("User::alice", "read", "Document::1")
    stats = pep.stats()
    assert (stats["hits"], stats["misses"], stats["asked"], stats["entries"]) == (1, 1, 1, 1)
    told = pep.explain("User::alice", "read", "Document::1")
    assert (told["permit"], told["cached"], [p["id"] for p in told["policies"]]) == (True, True, ["readers"])
    assert not pep.explain("User::alice", "read", "Document::2")["cached"]
    with pytest.raises(pepcore.BadQuestion):
        pep.explain("alice", "read", "Document::1")


def test_the_embedded_form_loads_no_daemon_and_no_event_loop() -> None:
    code = (
        "import sys, pepcore; p = pepcore.embedded('permit(principal, action, resource);');"
        "assert p.check('A::b', 'c', 'D::e');"
        "print([m for m in ('asyncio', 'uvloop', 'pepcore.server') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_header_list_that_is_not_wrapped_is_denied_by_a_guard_that_applies() -> None:
    rows = json.dumps([{"type": "remove-header", "properties": {"name": "Authorization"}}])
    pep = pepcore.embedded(
        f"@obligation({json.dumps(rows)}) permit(principal, action, resource);", handles=["remove-header"]
    )
    fields = [("Authorization", "secret"), ("Via", "a")]

    @pep.guard("User::alice", "read", "Document::1", apply=True)
    def read(wrapped: bool) -> object:
        return pepcore.Headers(fields) if wrapped else fields

    assert read(True) == pepcore.Headers((("Via", "a"),))
    with pytest.raises(Denied, match=r"pepcore\.Headers"):
        read(False)
