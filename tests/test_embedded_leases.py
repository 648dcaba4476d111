"""Leases of the embedded form: how they are held, what ends them, who is told, and what a forked child has of them."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import pepcore
from pepcore import BadRequest, Embedded, Lease
from pepcore.inprocess import holding
from tests.test_embedded import in_child

SHORT = """
@id("ann") @ttl("1s") permit(principal == User::"ann", action, resource);
@id("bob") permit(principal == User::"bob", action, resource) when { context.n < 3 };
@id("agent") permit(principal == Agent::"a", action, resource) when { context.on_behalf_of == [User::"ann"] };
@id("masked") @obligation("[{\\"id\\":\\"o1\\",\\"type\\":\\"mask\\",\\"properties\\":{\\"fields\\":[\\"/ssn\\"],\\"style\\":\\"last-4\\"}}]")
permit(principal == User::"carl", action, resource);
@id("never") @reason("nobody") forbid(principal, action, resource == Session::"secret");
"""  # noqa: E501
ANN = ("User::ann", "use", "Session::7")
BOB = ("User::bob", "use", "Session::8", {"n": 1})


@pytest.fixture
def pep() -> Iterator[Embedded]:
    with pepcore.embedded(SHORT) as made:
        yield made


def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.002)


# ---- held ----


def test_a_lease_is_held_until_it_is_given_up_and_then_nobody_is_told(pep: Embedded) -> None:
    told: list[Lease] = []
    with pep.lease(*ANN, on_end=told.append) as lease:
        assert isinstance(lease, Lease)
        assert lease
        assert lease.verdict.permit
        assert lease.verdict.policies == ("ann",)
        assert lease.number
        assert not lease.wait(0.01)
    assert not lease
    assert lease.wait(0)
    assert (lease.cause, lease.reason) == ("", "")
    lease.close()
    time.sleep(0.05)
    assert told == []


def test_what_is_not_permitted_is_not_held_and_says_why(pep: Embedded) -> None:
    told: list[Lease] = []
    for question, why in (
        (("User::eve", "use", "Session::7"), ""),
        (("User::ann", "use", "Session::secret"), "nobody"),
        (("ann", "use", "Session::7"), "bad-question: subject"),
        (("User::carl", "use", "Session::7"), "obligation: "),
        (("User::bob", "use", "Session::7", {"n": 3}), ""),
    ):
        lease = pep.lease(*question, on_end=told.append)
        assert not lease
        assert lease.wait(0)
        assert (lease.verdict.error or lease.verdict.reason).startswith(why)
        lease.close()
    assert pep.lease(*ANN)
    assert pep.lease(*BOB)
    assert told == []


def test_a_lease_is_held_for_a_chain_and_with_obligations_that_are_discharged() -> None:
    pep = pepcore.embedded(SHORT, handles=["mask"])
    agent = ("Agent::a", "use", "Session::7")
    assert pep.lease(*agent, on_behalf_of=["User::ann"])
    assert not pep.lease(*agent, on_behalf_of=["User::bob"])
    assert not pep.lease(*agent)
    lease = pep.lease("User::carl", "use", "Session::7")
    assert lease
    assert lease.verdict.apply({"ssn": "123456789"}) == {"ssn": "****6789"}


def test_a_lease_is_never_taken_from_the_cache_and_its_lifetime_is_renewed(pep: Embedded) -> None:
    assert pep.check(*ANN)
    assert not pep.lease("User::eve", "use", "Session::7")
    asked = pep.stats()["asked"]
    lease = pep.lease(*ANN)
    assert pep.stats()["asked"] == asked + 1
    end = time.monotonic() + 2.5  # two lifetimes
    while time.monotonic() < end:
        assert lease
        time.sleep(0.01)
    assert pep.stats()["asked"] >= asked + 3


def test_no_thread_runs_before_the_first_lease_and_none_for_ever_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "IDLE_S", 0.05)
    pep = pepcore.embedded(SHORT)
    before = threading.active_count()
    assert pep.check(*ANN)
    assert pep.revoke(all=True).held == 0
    assert pep._holder is None
    assert threading.active_count() <= before
    for _ in range(2):
        for _ in range(3):
            with pep.lease(*ANN) as lease:
                assert pep._holder._thread is not None
                assert pep._holder._thread.is_alive()
                pep.revoke(all=True)
                assert not lease
        until(lambda: pep._holder._thread is None)


# ---- the end ----


@pytest.mark.parametrize(
    "what",
    [{"subject": "User::ann"}, {"resource": {"type": "Session", "id": "7"}}, {"tag": "policy:ann"}, {"all": True},
     {"tag": ["x", "User::ann"]}],
)  # fmt: skip
def test_a_revoke_ends_the_leases_that_hang_on_it_before_it_returns(pep: Embedded, what: dict[str, Any]) -> None:
    told: list[tuple[Lease, int]] = []
    lease = pep.lease(*ANN, on_end=lambda lease: told.append((lease, threading.get_ident())))
    other = pep.lease(*BOB)
    pep.revoke(subject="User::nobody", tag=["policy:bobby", "ann"])
    assert lease
    done = pep.revoke(**what, reason="stolen")
    assert not lease
    assert (lease.cause, lease.reason) == ("revoked", "stolen")
    assert bool(other) is not what.get("all", False)
    until(lambda: told)
    assert told[0][0] is lease
    assert told[0][1] != threading.get_ident()
    assert pep.lease(*ANN), "a revoke is no deny: the policies decide anew"
    assert pep.check(*ANN, min_revision=(done.boot, done.revision))
    time.sleep(0.05)
    assert len(told) == 1


def test_a_revoke_ends_cached_answers_and_says_what_is_wrong_with_it(pep: Embedded) -> None:
    assert pep.check(*ANN)
    assert pep.check(*ANN).cached
    assert pep.check(*BOB).permit
    done = pep.revoke(subject="User::ann")
    assert (done.boot, done.revision, done.durable, done.held, done.before) == (pep.stats()["boot"], 1, True, 0, False)
    again = pep.check(*ANN)
    assert (again.permit, again.cached, again.revision) == (True, False, 1)
    assert pep.check(*BOB).cached
    wrongs: list[dict[str, Any]] = [{}, {"subject": "ann"}, {"all": True, "tag": "x"}, {"tag": "x" * 2000}]
    for wrong in wrongs:
        with pytest.raises(BadRequest):
            pep.revoke(**wrong)
    assert pep.check(*ANN).cached


def test_a_reload_ends_what_the_new_policies_do_not_permit_before_it_returns(pep: Embedded) -> None:
    ann, bob = pep.lease(*ANN), pep.lease(*BOB)
    pep.reload(SHORT)
    assert ann
    assert bob
    pep.reload(SHORT + '@id("not-ann") @reason("left") forbid(principal == User::"ann", action, resource);')
    assert not ann
    assert (ann.cause, ann.reason) == ("denied", "left")
    assert bob
    with pytest.raises(pepcore.PolicyError):
        pep.reload("permit(")
    assert bob


def test_a_lease_ends_at_not_after_and_one_without_goes_on(pep: Embedded) -> None:
    told: list[Lease] = []
    lease = pep.lease(*BOB, not_after=time.time() + 0.4, on_end=told.append)
    other = pep.lease(*BOB, not_after=datetime.now(UTC) + timedelta(hours=1))
    assert lease
    assert lease.verdict.expires <= time.clock_gettime(time.CLOCK_BOOTTIME) + 0.4
    assert lease.wait(2)
    assert (lease.cause, lease.reason) == ("over", "the caller's own permission has ended")
    until(lambda: told == [lease])
    assert other
    assert pep.lease(*BOB, not_after=time.time() - 1).verdict.error.startswith("expired")
    assert pep.lease(*BOB, not_after="soon").verdict.error.startswith("bad-request")  # type: ignore[arg-type]


def test_a_lease_ends_at_the_edge_of_a_time_that_the_policies_read() -> None:
    edge = datetime.now(UTC) + timedelta(seconds=1.2)
    at = edge.strftime("%Y-%m-%dT%H:%M:%S.") + f"{edge.microsecond // 1000:03}Z"
    before = f'permit(principal, action == Action::"use", resource) when {{ context.now < datetime("{at}") }};'
    with pepcore.embedded(before + ' permit(principal, action == Action::"keep", resource);') as pep:
        lease, other = pep.lease(*ANN), pep.lease("User::ann", "keep", "Session::7")
        assert lease
        assert lease.wait(3)
        assert 0 <= time.time() - edge.timestamp() < 0.5
        assert lease.cause == "denied"
        assert other


def test_a_lease_ends_by_its_own_clock_where_no_thread_runs(pep: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding.Holder, "_run", lambda self: None)
    lease, other = pep.lease(*ANN), pep.lease(*BOB)
    assert lease
    until(lambda: not lease)
    assert lease.cause == "", "nobody has looked"
    assert other


def test_a_wall_clock_that_was_set_asks_about_every_lease(pep: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = pep.lease(*BOB)
    asked = pep.stats()["asked"]
    pep._page.clock_was_set()
    until(lambda: pep.stats()["asked"] == asked + 1)
    assert lease


def test_a_pdp_that_fails_ends_a_lease_with_its_words(pep: Embedded) -> None:
    lease = pep.lease(*ANN)
    pdp, decide = pep._pdp, pep._pdp.decide

    def broken(*_: Any) -> Any:
        raise RuntimeError("of the engine")

    pdp.decide = broken  # type: ignore[method-assign]
    assert lease.wait(3)
    assert lease.cause == "denied"
    assert "of the engine" in lease.reason
    pdp.decide = decide  # type: ignore[method-assign]
    assert pep.lease(*ANN)


def test_closing_the_pep_gives_up_its_leases_and_it_holds_no_others(pep: Embedded) -> None:
    told: list[Lease] = []
    lease = pep.lease(*ANN, on_end=told.append)
    assert lease
    pep.close()
    pep.close()
    assert not lease
    assert lease.wait(0)
    refused = pep.lease(*ANN)
    assert not refused
    assert refused.verdict.error == "not-available: lease: this PEP was closed"
    assert pep.check(*ANN), "without a record, what is asked afterwards is decided anew"
    lease.close()
    time.sleep(0.05)
    assert told == []


# ---- who is told ----


def test_an_on_end_may_raise_block_revoke_and_ask_and_harms_no_other(
    pep: Embedded, caplog: pytest.LogCaptureFixture
) -> None:
    order: list[str] = []
    going = threading.Event()

    def raises(lease: Lease) -> None:
        order.append("raises")
        raise ValueError("of the caller")

    def leaves(lease: Lease) -> None:
        raise SystemExit

    def asks(lease: Lease) -> None:
        order.append(f"asks {bool(pep.lease(*ANN))} {bool(pep.check(*ANN))}")

    def revokes(lease: Lease) -> None:
        order.append(f"revokes {pep.revoke(subject='User::bob').revision} {bool(bob)}")

    def blocks(lease: Lease) -> None:
        going.wait(5)
        order.append("blocks")
        pep.close()

    caplog.set_level(logging.CRITICAL)
    bob, kept = pep.lease(*BOB), pep.lease("User::bob", "use", "Session::9", {"n": 2})
    leases = [pep.lease(*ANN, on_end=on_end) for on_end in (raises, leaves, asks, revokes, blocks)]
    assert all(leases)
    done = pep.revoke(subject="User::ann")
    assert not any(leases)
    assert done.held >= 1
    until(lambda: len(order) == 3)
    assert not bob
    assert not kept
    assert pep.revoke(tag="nothing").held == 1, "one has not returned from its `on_end` yet"
    going.set()
    until(lambda: order == ["raises", "asks True True", "revokes 2 False", "blocks"])
    until(lambda: pep._closed)


def test_a_lease_that_ended_leaves_nothing_behind(pep: Embedded) -> None:
    def leases() -> holding.Leases:
        assert pep._holder is not None
        return pep._holder.leases

    for _ in range(3):
        with pep.lease(*ANN):
            pass
        one, two = pep.lease(*ANN, on_end=lambda lease: None), pep.lease(*ANN)
        gone = [weakref.ref(one), weakref.ref(two)]
        pep.revoke(all=True)
        del one, two
    until(lambda: pep.revoke(tag="nothing").held == 0)
    assert len(leases()) == 0
    assert leases().counts()["held"] == 0
    assert not leases()._tagged
    assert not leases().room._counted
    assert pep._holder is not None
    assert not pep._holder._held
    gc.collect()
    until(lambda: gc.collect() is not None and not any(ref() for ref in gone))


def test_there_is_room_for_so_many_and_what_is_given_up_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MOST", 3)
    with pepcore.embedded(SHORT) as pep:
        leases = [pep.lease(*ANN) for _ in range(3)]
        assert all(leases)
        assert pep.lease(*ANN).verdict.error.startswith("overloaded: lease")
        leases[0].close()
        assert pep.lease(*ANN)
        assert not pep.lease("User::eve", "use", "Session::7")
        pep.revoke(all=True)
        assert all([pep.lease(*ANN) for _ in range(3)])


def test_a_lease_is_given_up_without_waiting_for_an_evaluation(pep: Embedded) -> None:
    lease, other = pep.lease(*ANN), pep.lease(*ANN)
    with pep._lock:
        began = time.monotonic()
        lease.close()
        assert time.monotonic() - began < 0.1
        assert not lease
        assert pep.lease(*ANN).verdict.error.startswith("deadline")
    assert other
    assert pep._holder is not None
    until(lambda: len(pep._holder.leases) == 1)


def test_an_interrupted_lease_is_not_held_and_the_next_one_is(pep: Embedded) -> None:
    decide = pep._pdp.decide

    def interrupted(*_: Any) -> Any:
        pep._pdp.decide = decide  # type: ignore[method-assign]
        raise KeyboardInterrupt

    pep._pdp.decide = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        pep.lease(*ANN)
    assert pep._holder is not None
    assert len(pep._holder.leases) == 0
    assert not pep._holder.leases.room._counted
    assert pep.lease(*ANN)


def test_where_no_thread_is_to_be_had_nothing_is_held(pep: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", no_thread)
        lease = pep.lease(*ANN)
        assert not lease
        assert "can't start new thread" in lease.verdict.error
    assert pep.lease(*ANN)
    assert pep._holder is not None
    assert len(pep._holder.leases) == 1


def test_many_threads_take_give_up_and_lose_leases(pep: Embedded) -> None:
    told: list[Lease] = []
    lost: list[Lease] = []
    stop = threading.Event()

    def takes(seed: int) -> None:
        i = seed
        while not stop.is_set():
            i += 1
            lease = pep.lease("User::ann", "use", f"Session::{i % 5}", on_end=told.append)
            if not lease.verdict:  # an overloaded machine
                assert lease.verdict.error.startswith("deadline")
            elif i % 2:
                lease.close()
            else:
                assert lease.wait(5)
                lost.append(lease)
            assert not lease

    threads = [threading.Thread(target=takes, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pep.revoke(subject="User::ann")
        pep.check(*BOB)
        time.sleep(0.003)
    stop.set()
    until(lambda: pep.revoke(all=True) and not any(thread.is_alive() for thread in threads))
    for thread in threads:
        thread.join()
    assert len(lost) > 10
    until(lambda: pep.revoke(tag="nothing").held == 0)
    assert set(lost) <= set(told)
    assert len(told) == len(set(told))
    assert {lease.cause for lease in told} == {"revoked"}
    assert pep._holder is not None
    assert len(pep._holder.leases) == 0


def test_thousands_of_leases_end_at_once_and_checks_are_answered_meanwhile(pep: Embedded) -> None:
    told: list[Lease] = []
    leases = [pep.lease("User::bob", "use", f"Session::{i}", {"n": 1}, on_end=told.append) for i in range(2_000)]
    assert all(leases)
    answers: list[pepcore.Verdict] = []
    stop = threading.Event()

    def asks() -> None:
        while not stop.is_set():
            answers.append(pep.check("User::ann", "use", f"Document::{len(answers)}"))

    thread = threading.Thread(target=asks)
    thread.start()
    pep.reload(SHORT)
    assert all(leases)
    pep.revoke(subject="User::bob")
    assert not any(leases)
    stop.set()
    thread.join()
    assert answers
    assert all(answers), [answer for answer in answers if not answer][:3]
    until(lambda: len(told) == len(leases))


# ---- a forked child ----


def test_a_forked_child_holds_nothing_and_may_hold_its_own(pep: Embedded) -> None:
    told: list[Lease] = []
    lease = pep.lease(*ANN, on_end=told.append)

    def child() -> bool:
        gone = not lease and lease.wait(0)
        lease.close()
        mine = pep.lease(*ANN, on_end=told.append)
        held = bool(mine)
        pep.revoke(all=True)
        until(lambda: told)
        return gone and held and not mine and told == [mine]

    assert in_child(child)
    assert lease
    assert told == []
    pep.revoke(all=True)
    until(lambda: told == [lease])


def test_a_child_forked_while_others_take_leases_is_held_up_by_nobody(pep: Embedded) -> None:
    stop = threading.Event()

    def takes() -> None:
        while not stop.is_set():
            with pep.lease(*ANN):
                pass

    threads = [threading.Thread(target=takes) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert in_child(lambda: bool(pep.lease(*ANN)) and pep.revoke(all=True).durable)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_child_whose_fork_nobody_told_holds_nothing(pep: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = pep.lease(*ANN)
    monkeypatch.setattr(holding.forks, "number", lambda: 0)  # what the kernel makes of the word where C code forks
    assert not lease
    monkeypatch.undo()
    assert lease
    assert os.getpid()
