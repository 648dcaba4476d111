"""The table of an embedded PEP: what hits, what must not, what is kept, and that a hit runs no Python code."""

from __future__ import annotations

import gc
import mmap
import random
import struct
import sys
import threading
import time
from typing import Any

import pytest

from pepcore.core.local import Local
from pepcore.core.page import PAGE_BYTES, Page
from pepcore.core.verdict import Verdict, deny, settle
from pepcore.errors import PdpFault

ALICE = ("User::alice", "read", "Document::1")


def kept(page: Page, permit: object, reason: str, until: int, number: int = 0, stamps: bytes = b"") -> Verdict:
    """An answer of this page that may be kept as long as it stands."""
    return settle(
        permit, reason, (), (), (), number=number, boot=page.boot, revision=page.revision, expires_ns=until,
        kept_ns=until, stamps=stamps,
    )  # fmt: skip


class Pdp:
    """Answers with verdicts that live `seconds`, and remembers what it was asked."""

    def __init__(self, page: Page, seconds: float = 60.0) -> None:
        self.page, self.seconds, self.asked = page, seconds, []
        self.permit: object = True

    def __call__(self, *question: Any) -> Verdict:
        self.asked.append(question)
        expires = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(self.seconds * 1e9) if self.seconds else 0
        number = len(self.asked)
        return kept(self.page, self.permit, "", expires, number)


@pytest.fixture
def page() -> Page:
    return Page(1)


@pytest.fixture
def pdp(page: Page) -> Pdp:
    return Pdp(page)


@pytest.fixture
def local(page: Page, pdp: Pdp) -> Local:
    return Local(page, pdp, slots=64)


def test_an_equal_question_hits_and_gets_one_shared_verdict(local: Local, pdp: Pdp) -> None:
    first = local.check(*ALICE)
    again = local.check("".join(["User::", "alice"]), "read", "Document::1")
    assert (bool(first), first.cached) == (True, False)
    assert (bool(again), again.cached, again.id) == (True, True, first.id)
    assert local.check(*ALICE) is again
    assert len(pdp.asked) == 1


@pytest.mark.parametrize(
    "other",
    [
        ("User::alicf", "read", "Document::1"),
        ("User::alice", "reaa", "Document::1"),
        ("User::alice", "read", "Document::2"),
        ("User::alice", "Document::1", "read"),
        ("User::al\u00efce", "read", "Document::1"),
        ("User::al\u4e00ce", "read", "Document::1"),
        ("User::alice", "read", "Document::1", {"a": 1}),
    ],
)
def test_a_question_that_differs_in_anything_is_asked(local: Local, pdp: Pdp, other: tuple[Any, ...]) -> None:
    local.check(*ALICE)
    assert not local.check(*other).cached
    assert local.check(*other).cached
    assert len(pdp.asked) == 2


@pytest.mark.parametrize(
    ("context", "other"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": 1, "b": 1}),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"a": "1"}, {"a": 1}),
        ({"a": "x"}, {"b": "x"}),
        ({"a": 2**64}, {"a": 2**64 + 1}),
        ({"a": -1}, {"a": -2}),  # these two have one hash in CPython
    ],
)
def test_contexts_are_compared_by_exact_type_and_value(
    local: Local, pdp: Pdp, context: dict[str, Any], other: dict[str, Any]
) -> None:
    local.check(*ALICE, context)
    assert not local.check(*ALICE, other).cached
    assert local.check(*ALICE, dict(context)).cached
    assert local.check(*ALICE, dict(other)).cached
    assert len(pdp.asked) == 2


def test_the_order_of_a_context_does_not_matter_and_an_empty_one_is_none(local: Local, pdp: Pdp) -> None:
    local.check(*ALICE, {"a": 1, "b": "x", "c": True})
    assert local.check(*ALICE, {"c": True, "b": "x", "a": 1}).cached
    local.check(*ALICE)
    assert local.check(*ALICE, {}).cached
    assert len(pdp.asked) == 2


class Text(str):
    def __hash__(self) -> int:
        raise AssertionError("a hit ran Python code")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a hit ran Python code")


class Whole(int):
    def __eq__(self, other: object) -> bool:
        raise AssertionError("a hit ran Python code")

    def __hash__(self) -> int:
        raise AssertionError("a hit ran Python code")


@pytest.mark.parametrize(
    "question",
    [
        (Text("User::alice"), "read", "Document::1"),
        ("User::alice", Text("read"), "Document::1"),
        ("User::alice", "read", Text("Document::1")),
        (*ALICE, {"a": Text("b")}),
        (*ALICE, {"a": Whole(1)}),
        (*ALICE, {"a": 1.0}),
        (*ALICE, {"a": None}),
        (*ALICE, {"a": [1]}),
        (*ALICE, {str(i): i for i in range(17)}),
        ({"type": "User", "id": "alice"}, "read", "Document::1"),
        (*ALICE, [1]),
    ],
)
def test_whatever_is_not_plain_is_asked_every_time(local: Local, pdp: Pdp, question: tuple[Any, ...]) -> None:
    assert not local.check(*question).cached
    assert not local.check(*question).cached
    assert len(pdp.asked) == 2
    assert local.usage()["entries"] == 0


@pytest.mark.parametrize("context", [None, {"a": 1}])
def test_a_chain_is_kept_as_it_is_asked(local: Local, pdp: Pdp, context: dict[str, Any] | None) -> None:
    chains: list[Any] = [
        (), ("User::bob",), ("User::boc",), ("User::bob", "User::eve"), ("User::eve", "User::bob"), ("User::alice",)
    ]  # fmt: skip
    for n, chain in enumerate(chains):
        assert not local.check(*ALICE, context, on_behalf_of=chain).cached
        assert local.check(*ALICE, context, on_behalf_of=chain).id == f"{n + 1:016x}"
    for n, chain in enumerate(chains):
        assert local.check(*ALICE, context and dict(context), on_behalf_of=list(chain)).id == f"{n + 1:016x}"
        assert not local.check(*ALICE, {"a": 2}, on_behalf_of=chain).cached
    assert len(pdp.asked) == 2 * len(chains)


def test_a_context_is_not_taken_for_a_chain(local: Local, pdp: Pdp) -> None:
    local.check(*ALICE, on_behalf_of=("User::bob",))
    assert not local.check(*ALICE, {"User::bob": 1}).cached
    assert not local.check(*ALICE).cached
    assert local.check(*ALICE, on_behalf_of=("User::bob",)).cached
    assert len(pdp.asked) == 3


@pytest.mark.parametrize(
    "chain", [("User::bob",) * 17, ("User::bob", {"type": "User", "id": "x"}), (7,), "User::bob", {"User::bob"}, None]
)
def test_a_chain_that_is_not_plain_is_asked_every_time(local: Local, pdp: Pdp, chain: Any) -> None:
    assert not local.check(*ALICE, on_behalf_of=chain).cached
    assert not local.check(*ALICE, on_behalf_of=chain).cached
    assert local.usage()["entries"] == 0


def test_a_chain_is_let_go_with_its_entry(local: Local, pdp: Pdp) -> None:
    chain = ("User::" + "bob" * 20,)
    held = sys.getrefcount(chain)
    local.check(*ALICE, {"a": 1}, on_behalf_of=chain)
    pdp.asked.clear()
    assert sys.getrefcount(chain) == held + 1
    local.clear()
    assert sys.getrefcount(chain) == held


@pytest.mark.parametrize("bound", [{"not_after": 2e9}, {"min_revision": (1, 0)}])
def test_a_request_with_bounds_is_asked(local: Local, pdp: Pdp, bound: dict[str, Any]) -> None:
    local.check(*ALICE)
    assert not local.check(*ALICE, **bound).cached
    assert local.check(*ALICE, on_behalf_of=(), not_after=None, min_revision=None).cached
    assert len(pdp.asked) == 2


def test_a_context_that_its_caller_changes_afterwards_does_not_change_the_key(local: Local) -> None:
    context = {"port": 22}
    local.check(*ALICE, context)
    context["port"] = 80
    assert not local.check(*ALICE, context).cached
    assert local.check(*ALICE, {"port": 22}).cached


def test_a_context_that_changes_while_it_is_asked_about_is_kept_as_it_was_asked(page: Page) -> None:
    context = {"port": 22}
    inner = Pdp(page)

    def changing(*question: Any) -> Verdict:
        context["port"] = 80
        return inner(*question)

    local = Local(page, changing, slots=64)
    local.check(*ALICE, context)
    assert inner.asked[0][3] == {"port": 22}
    assert not local.check(*ALICE, {"port": 80}).cached
    assert local.check(*ALICE, {"port": 22}).cached


def test_an_answer_ends_with_its_lifetime(page: Page) -> None:
    pdp = Pdp(page, seconds=0.05)
    local = Local(page, pdp, slots=64)
    local.check(*ALICE)
    assert local.check(*ALICE).cached
    time.sleep(0.06)
    assert not local.check(*ALICE).cached


def test_a_bump_of_the_page_ends_every_answer(local: Local, page: Page) -> None:
    local.check(*ALICE)
    assert local.check(*ALICE).cached
    page.bump()
    assert not local.check(*ALICE).cached
    assert local.check(*ALICE).cached


def test_an_answer_that_crossed_a_bump_is_not_kept(page: Page) -> None:
    inner = Pdp(page)

    def crossing(*question: Any) -> Verdict:
        verdict = inner(*question)
        if len(inner.asked) == 1:
            page.bump()
        return verdict

    local = Local(page, crossing, slots=64)
    local.check(*ALICE)
    assert local.usage()["entries"] == 0
    assert not local.check(*ALICE).cached
    assert local.check(*ALICE).cached


def test_an_answer_without_a_lifetime_or_with_a_fault_is_not_kept(page: Page) -> None:
    single = Local(page, Pdp(page, seconds=0), slots=64)
    broken = Local(page, lambda *_: deny(PdpFault("", "down")), slots=64)
    for local in (single, broken):
        assert not local.check(*ALICE).cached
        assert not local.check(*ALICE).cached
        assert local.usage()["entries"] == 0


def test_a_deny_is_kept_too(local: Local, pdp: Pdp) -> None:
    pdp.permit = False
    assert not local.check(*ALICE)
    again = local.check(*ALICE)
    assert (bool(again), again.cached) == (False, True)


def test_long_keys_are_answered_but_not_kept(local: Local, pdp: Pdp) -> None:
    long = "User::" + "a" * 1100
    assert local.check(long, "read", "Document::1")
    assert not local.check(long, "read", "Document::1").cached
    assert not local.check(*ALICE, {"a": 1 << 10000}).cached
    assert not local.check(*ALICE, {"a": 1 << 10000}).cached
    assert local.usage()["entries"] == 0


def test_memory_stays_fixed_under_a_flood_of_keys(page: Page, pdp: Pdp) -> None:
    local = Local(page, pdp, slots=64)
    for i in range(5000):
        local.check("User::alice", "read", f"Document::{i}")
    usage = local.usage()
    assert usage["slots"] == 64
    assert usage["entries"] <= 64
    assert usage["evictions"] == 5000 - usage["entries"]


def test_what_is_asked_often_survives_a_flood_of_keys_asked_once(page: Page, pdp: Pdp) -> None:
    local = Local(page, pdp, slots=8)
    for i in range(800):
        local.check(*ALICE)
        local.check("User::alice", "read", f"Document::x{i}")
    asked = sum(q[2] == "Document::1" for q in pdp.asked)
    assert asked == 1
    assert local.usage()["evictions"] > 700


def test_dead_entries_make_room_before_live_ones(page: Page, pdp: Pdp) -> None:
    local = Local(page, pdp, slots=8)
    for i in range(8):
        local.check("User::alice", "read", f"Document::{i}")
    page.bump()
    for i in range(8):
        local.check("User::alice", "read", f"Document::{i}")
    assert local.usage()["evictions"] == 0
    assert all(local.check("User::alice", "read", f"Document::{i}").cached for i in range(8))


def test_clear_and_renew_let_go_of_everything(local: Local, page: Page) -> None:
    subject = "User::" + "x" * 50
    before = sys.getrefcount(subject)
    local.check(subject, "read", "Document::1")
    assert sys.getrefcount(subject) > before
    local.clear()
    gc.collect()
    assert local.usage()["entries"] == 0
    local.check(*ALICE)
    local.renew(Page(2))
    assert local.page.boot == 2
    assert not local.check(*ALICE).cached


def test_evictions_leak_no_references(page: Page) -> None:
    answer = kept(page, True, "", time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10**11)
    local = Local(page, lambda *_: answer, slots=8)
    subject, action = "User::" + "x" * 50, "re" + "ad" * 10
    context = {"key" * 5: "value" * 5}
    before = [sys.getrefcount(o) for o in (subject, action, context)]
    for i in range(1000):
        local.check(subject, action, f"Document::{i}", context)
    local.clear()
    assert [sys.getrefcount(o) for o in (subject, action, context)] == before


def test_wrong_calls_raise_as_those_of_any_function(local: Local) -> None:
    with pytest.raises(TypeError):
        local.check("User::alice", "read")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        local.check(*ALICE, unknown=1)  # type: ignore[call-arg]
    assert local.check(subject="User::alice", action="read", resource="Document::1")


def test_threads_get_their_own_answers_while_entries_come_and_go(page: Page) -> None:
    def answer(subject: str, action: str, resource: str, *_: Any) -> Verdict:
        permit = resource.endswith("0")
        expires = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 2_000_000
        return kept(page, permit, resource, expires)

    local = Local(page, answer, slots=16)
    wrong: list[str] = []
    end = time.monotonic() + 1.0

    def run(seed: int) -> None:
        i = seed
        while time.monotonic() < end:
            i += 1
            resource = f"Document::{i % 100}"
            verdict = local.check("User::alice", "read", resource, {"n": i % 3})
            if verdict.reason != resource or bool(verdict) != resource.endswith("0"):
                wrong.append(resource)
            if i % 50 == 0:
                page.bump()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=(n * 37,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def told_apart(question: tuple[Any, ...]) -> str:
    """A text that two questions share only if they are one question."""
    context = sorted((k, type(v).__name__, repr(v)) for k, v in (question[3] or {}).items())
    return repr((*question[:3], context))


@pytest.mark.parametrize("seed", range(4))
def test_random_histories_never_get_the_answer_of_another_question_or_an_older_revision(seed: int) -> None:
    chance = random.Random(seed)
    page = Page(1)

    def answer(*question: Any) -> Verdict:
        life = chance.choice([0, 200_000, 10**9, 10**9])
        expires = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + life if life else 0
        reason = told_apart(question)
        permit = bool(len(reason) % 2)
        return kept(page, permit, reason, expires)

    local = Local(page, answer, slots=64)
    names = ["a", "b", "ab", "", "\u00e9", "\u4e00", "\U0001f600", "a\0"]
    values: list[Any] = [0, 1, -1, -2, True, False, "1", "", "a", 2**63, 2**64, -(2**63), 10**30, 1.0, None]
    for _ in range(20_000):
        context = {chance.choice(names): chance.choice(values) for _ in range(chance.choice([0, 0, 1, 1, 2]))} or None
        question = (chance.choice(names[:2]), chance.choice(names[3:5]), chance.choice(names), context)
        verdict = local.check(*question)
        assert verdict.reason == told_apart(question)
        assert verdict.permit is bool(len(verdict.reason) % 2)
        assert verdict.revision == page.revision
        assert not verdict.cached or verdict.kept_ns > 0
        if chance.random() < 0.002:
            page.bump()
    usage = local.usage()
    assert usage["hits"] > 100
    assert usage["evictions"] > 100
    assert usage["entries"] <= 64


def test_a_wall_clock_that_was_set_ends_what_was_kept_and_the_next_answer_is_kept_again(
    local: Local, pdp: Pdp, page: Page
) -> None:
    local.check(*ALICE)
    assert local.check(*ALICE).cached
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    local.clocks_read(now, time.time_ns() // 10**6)
    assert local.check(*ALICE).cached
    local.clocks_read(now, time.time_ns() // 10**6 - 3_600_000)  # as if it had stood elsewhere until now
    assert page.revision == 1
    assert not local.check(*ALICE).cached  # sees the step back to what the clock says, too
    assert local.check(*ALICE).cached
    assert (page.revision, len(pdp.asked)) == (2, 2)


def test_a_wall_clock_that_was_set_before_the_first_hit_is_seen_too(local: Local, page: Page) -> None:
    local.check(*ALICE)
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    local.clocks_read(now, time.time_ns() // 10**6 + 3_600_000)
    assert page.revision == 1


def leased(boot: int = 5) -> tuple[Page, Page]:
    """The page of a daemon, and the same as a client maps it."""
    memory = mmap.mmap(-1, PAGE_BYTES)
    return Page(boot, memory), Page.reader(memory, boot)


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_page_of_a_daemon_is_believed_only_while_its_lease_is_renewed() -> None:
    daemon, reader = leased()
    local = Local(reader, lambda *_: kept(reader, True, "", now_ns() + 10**11))
    local.check(*ALICE)
    assert not local.check(*ALICE).cached, "its lease was never renewed"
    daemon.renew(now_ns() + 90_000_000)
    assert local.check(*ALICE).cached
    daemon.renew(now_ns() - 1)
    assert not local.check(*ALICE).cached
    daemon.renew(now_ns() + 90_000_000)
    assert local.check(*ALICE).cached
    daemon.renew(0)
    assert not local.check(*ALICE).cached


def test_a_revoke_ends_what_hangs_on_its_slot_and_leaves_the_rest() -> None:
    daemon, reader = leased()
    slots = {"Document::1": struct.pack("<2H", 0, 70), "Document::2": struct.pack("<2H", 0, 71)}
    local = Local(reader, lambda s, a, r, *_: kept(reader, True, "", now_ns() + 10**11, stamps=slots[r]))
    ask = {r: lambda r=r: local.check("User::alice", "read", r).cached for r in slots}
    for question in ask.values():
        question()
    daemon.renew(now_ns() + 90_000_000)
    daemon.revoke([70])
    assert [ask["Document::1"](), ask["Document::2"]()] == [False, True]
    daemon.renew(now_ns() + 90_000_000)
    assert [ask["Document::1"](), ask["Document::2"]()] == [True, True]
    daemon.bump()
    assert [ask["Document::1"](), ask["Document::2"]()] == [False, False]


def test_an_answer_that_was_revoked_on_its_way_or_is_of_another_boot_is_not_kept() -> None:
    daemon, reader = leased()
    daemon.renew(now_ns() + 90_000_000)
    slot, other = struct.pack("<2H", 0, 70), Page(6)
    late: list[Verdict] = []
    local = Local(reader, lambda *_: late.pop())
    late.append(kept(reader, True, "", now_ns() + 10**11, stamps=slot))
    daemon.revoke([70])
    local.check(*ALICE)
    late.append(kept(other, True, "", now_ns() + 10**11, stamps=slot))
    assert not local.check(*ALICE).cached
    late.append(kept(reader, True, "", now_ns() + 10**11, stamps=slot))
    assert not local.check(*ALICE).cached
    daemon.renew(now_ns() + 90_000_000)
    assert local.check(*ALICE).cached
