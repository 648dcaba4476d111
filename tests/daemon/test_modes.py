"""Points that do not enforce, on a real daemon: `shadow` says what would happen, `off` asks nobody, a block denies."""

from __future__ import annotations

import os
import signal
import time

import pytest
from journal import decisions, recorded, wait
from raw import Client, Verdict, ask, check, many, read_verdict

import pepcore
from pepcore.audit import entries
from tests.vectors.frames import END_LEASE, LEASE

POLICIES = """
@id("readers") @reason("alice reads") permit(principal == User::"alice", action == Action::"read", resource);
@id("masked") @obligation("[{\\"id\\":\\"o1\\",\\"type\\":\\"redact\\",\\"properties\\":{\\"fields\\":[\\"/ssn\\"]}}]")
permit(principal == User::"bob", action == Action::"read", resource);
@id("limited")
@obligation("[{\\"id\\":\\"r\\",\\"type\\":\\"rate\\",\\"properties\\":{\\"count\\":1,\\"per\\":\\"1h\\"}}]")
permit(principal == Service::"job", action == Action::"read", resource);
@id("never") @reason("nobody reads it") forbid(principal, action, resource == Document::"secret");
@id("broken") forbid(principal == User::"err", action, resource) when { context.nothing > 1 };
"""
MODES = '[points.trial]\nmode = "shadow"\n[points.gone]\nmode = "off"\n'
SECRET = ask(resource="Document::secret")
ALL_TO_WORKERS = "import pepcore.server.misses as m; m.SMALL = -1"
WOULD = "shadow: would be denied: "


def hung(serve):
    """A daemon whose PDP says nothing any more."""
    daemon = serve(POLICIES, MODES, before=ALL_TO_WORKERS)
    for pid in daemon.workers():
        os.kill(pid, signal.SIGSTOP)
    return daemon


def verdicts(c: Client) -> list[Verdict]:
    """The items of a batch that is answered next."""
    body, at, found = c.read().body, 4, []
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "little")
        found.append(read_verdict(body[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


@pytest.fixture
def daemon(serve):
    return serve(POLICIES, MODES)


def test_shadow_permits_what_would_be_denied_and_says_and_records_so(daemon):
    with daemon.client(point="trial") as c:
        permit, deny = c.ask(), c.ask(SECRET)
        nobody, fault = c.ask(ask("User::eve")), c.ask(ask("User::err"))
    assert (permit.permit, permit.reason, permit.left_ms > 0) == (True, "alice reads", True)
    assert (deny.permit, deny.fault, deny.reason, deny.left_ms) == (True, 0, WOULD + "nobody reads it", 0)
    assert (nobody.permit, nobody.reason) == (True, WOULD + "no policy permits this")
    assert (fault.permit, fault.fault, fault.left_ms) == (True, 0, 0)
    assert fault.reason.startswith(WOULD + "pdp: ")
    found = decisions(daemon, 4)
    assert all(each.shadow and each.point == "trial" for each in found)
    assert [each.permit for each in found] == [True, False, False, False]
    assert [each.policies for each in found] == [("readers",), ("never",), (), ()]
    assert [each.fault for each in found] == ["", "", "", "pdp"]
    assert found[1].reason == "nobody reads it"
    with daemon.client() as c:
        assert [c.ask().permit, c.ask(SECRET).permit, c.ask(ask("User::err")).permit] == [True, False, False]
    assert [(each.permit, each.shadow) for each in decisions(daemon, 7)[4:]] == [
        (True, False), (False, False), (False, False),
    ]  # fmt: skip


def test_shadow_demands_no_obligation_and_the_record_shows_it(daemon):
    with daemon.client(point="trial") as c:
        got = c.ask(ask("User::bob"))
    assert (got.permit, got.payload.get("obligations")) == (True, None)
    assert got.reason == WOULD + "obligation: `redact` (o1) is not discharged here" or got.reason.startswith(WOULD)
    with daemon.client(point="trial", handles=("redact",)) as c:
        got = c.ask(ask("User::bob"))
    assert (got.permit, got.payload) == (True, {"policies": ["masked"]})
    unhandled, handled = decisions(daemon, 2)
    assert (unhandled.permit, unhandled.fault, handled.permit, handled.fault) == (False, "obligation", True, "")
    assert handled.obligations == unhandled.obligations == (("o1", "redact", False),)


def test_shadow_shows_what_a_rate_would_deny(daemon):
    with daemon.client(point="trial") as c:
        told = [c.ask(ask("Service::job")) for _ in range(2)]
    assert [(v.permit, v.reason) for v in told] == [(True, ""), (True, WOULD + "over the rate of `r`")]
    assert [(each.permit, each.obligations) for each in decisions(daemon, 2)] == [
        (True, (("r", "rate", True),)), (False, (("r", "rate", False),)),
    ]  # fmt: skip


def test_shadow_keeps_what_would_be_permitted_and_counts_each_hit(daemon):
    with daemon.client(point="trial") as c:
        told = [c.ask() for _ in range(5)]
        denied = [c.ask(SECRET) for _ in range(3)]
        assert [v.cached for v in told] == [False, True, True, True, True]
        assert not any(v.cached for v in denied), "each pass that is none is a decision of its own"
        hits = wait(daemon, lambda found: sum(each.count for each in found) >= 4, entries.Hits)
        assert sum(each.count for each in hits) == 4
        shown = c.stats()["points"]
    assert shown["trial"] == {"mode": "shadow", "passes": 8, "would_deny": 3, "faults": 0}
    assert shown["gone"] == {"mode": "off", "passes": 0, "would_deny": 0, "faults": 0}
    assert set(shown) == {"trial", "gone"}


def test_off_asks_no_pdp_and_records_each_pass(daemon):
    with daemon.client(point="gone") as c:
        told = [c.ask(SECRET), c.ask(SECRET), c.ask(ask("User::err"))]
        assert all((v.permit, v.reason, v.cached, v.left_ms) == (True, "off", False, 0) for v in told)
        assert c.stats()["asked"] == 0
        assert c.stats()["points"]["gone"]["passes"] == 3
    assert [(each.permit, each.shadow, each.reason, each.policies) for each in decisions(daemon, 3)] == [
        (True, False, "off", ())
    ] * 3
    with daemon.client() as c:
        assert [c.ask().permit, c.ask(SECRET).permit] == [True, False]


@pytest.mark.parametrize("point", ["", "trial", "gone"])
def test_a_block_denies_in_every_mode_and_its_lifting_lets_in_again(daemon, point: str):
    client = pepcore.connect(daemon.socket, deadline=5.0, point=point)
    assert client.check("User::alice", "read", "Document::a")
    assert client.check("Agent::x", "read", "Document::a", on_behalf_of=["User::alice"]).permit == bool(point)
    client.block("User::alice", reason="stolen")
    for subject, chain in (("User::alice", []), ("Agent::x", ["User::alice"])):
        verdict = client.check(subject, "read", "Document::a", on_behalf_of=chain)
        assert (bool(verdict), verdict.reason) == (False, "blocked: stolen")
    many = client.check_many([("User::alice", "read", "Document::a"), ("User::bob", "go", "Document::a")])
    assert [v.permit for v in many] == [False, bool(point)]
    client.unblock("User::alice")
    assert client.check("User::alice", "read", "Document::a")
    blocked = [each for each in decisions(daemon, 6) if each.reason == "blocked: stolen"]
    assert [(each.permit, each.shadow) for each in blocked] == [(False, False)] * len(blocked)
    assert blocked


@pytest.mark.parametrize(("point", "keeps"), [("", True), ("trial", False), ("gone", False)])
def test_no_client_keeps_an_answer_of_a_point_that_does_not_enforce(daemon, point: str, keeps: bool):
    client = pepcore.connect(daemon.socket, deadline=5.0, point=point)
    for _ in range(10):
        assert client.check("User::alice", "read", "Document::a")
    with daemon.client() as c:
        hits = c.stats()["cache"]["hits"]
    assert hits == {"": 0, "trial": 9, "gone": 0}[point]
    passes = 0 if keeps else 10
    with daemon.client() as c:
        until = time.monotonic() + 5
        while c.stats()["points"].get(point, {"passes": 0})["passes"] < passes and time.monotonic() < until:
            time.sleep(0.05)
        assert c.stats()["points"].get(point, {"passes": 0})["passes"] == passes


def test_batches_pass_and_go_on_over_what_would_be_denied(daemon):
    questions = [SECRET, ask(), ask("User::bob")]
    with daemon.client() as c:
        assert [v.permit for v in c.ask_many(questions, semantic=1)] == [False]
    for point in ("trial", "gone"):
        with daemon.client(point=point) as c:
            told = c.ask_many(questions, semantic=1)
        assert isinstance(told, list)
        assert [v.permit for v in told] == [True] * 3
        assert told[0].reason == (WOULD + "nobody reads it" if point == "trial" else "off")
    found = [(each.point, each.permit, each.shadow) for each in decisions(daemon, 7)]
    assert sorted(found[1:]) == sorted([
        ("trial", False, True), ("trial", True, True), ("trial", False, True), *[("gone", True, False)] * 3,
    ])  # fmt: skip


def test_where_the_pdp_hangs_shadow_passes_with_the_fault_on_record_and_others_deny(serve):
    daemon = hung(serve)
    with daemon.client(point="trial") as c, daemon.client() as other:
        passed, denied = c.ask(deadline_us=50_000), other.ask(deadline_us=50_000)
        batch = c.ask_many([ask(), SECRET], deadline_us=50_000)
        assert c.stats()["points"]["trial"]["faults"] == 3
    assert (passed.permit, passed.left_ms) == (True, 0)
    assert passed.reason.startswith(WOULD + "deadline")
    assert (denied.permit, denied.fault) == (False, 7)
    assert [(v.permit, v.fault) for v in batch] == [(True, 0)] * 2
    found = decisions(daemon, 4)
    assert sorted((each.point, each.permit, each.shadow, each.fault) for each in found) == [
        ("", False, False, "deadline"), *[("trial", False, True, "deadline")] * 3,
    ]  # fmt: skip


def test_a_block_that_comes_while_shadow_waits_for_a_pdp_that_hangs_denies(serve):
    daemon = hung(serve)
    admin = pepcore.connect(daemon.socket, deadline=5.0)
    with daemon.client(point="trial") as c, daemon.client(point="trial") as batch, daemon.client(point="trial") as free:
        c.send(check(ask(), 1, deadline_us=600_000))
        batch.send(many([ask(), ask("User::bob")], 2, deadline_us=600_000))
        free.send(check(ask("User::bob"), 3, deadline_us=600_000))
        daemon.wait_until_waiting(4)
        admin.block("User::alice", reason="now")
        told, items, other = c.answer(), verdicts(batch), free.answer()
    assert isinstance(told, Verdict)
    assert (told.permit, told.reason) == (False, "blocked: now")
    assert [v.permit for v in items] == [False, True]
    assert isinstance(other, Verdict)
    assert other.permit


def test_what_the_request_itself_bounds_denies_in_every_mode(daemon):
    for point in ("trial", "gone"):
        with daemon.client(point=point) as c:
            assert not c.ask(not_after=1).permit
            assert not c.ask(min_revision=(c.ask().boot, 1 << 60)).permit
            assert not c.ask_many([ask()], not_after=1)[0].permit
            assert not c.ask_many([ask()], min_revision=(c.ask().boot, 1 << 60))[0].permit
            assert c.ask(not_after=int(time.time() * 1000) + 60_000).permit
            assert c.ask_many([ask()], not_after=int(time.time() * 1000) + 60_000)[0].permit


def test_a_change_of_the_mode_needs_a_new_hello_and_is_in_force_then(daemon):
    with daemon.client(point="trial") as c:
        assert c.ask(SECRET).permit
        daemon.reload(config='[points.trial]\nmode = "enforce"\n[points.gone]\nmode = "off"\n')
        with pytest.raises(EOFError):
            c.read()
    with daemon.client(point="trial") as c:
        assert [c.ask().permit, c.ask(SECRET).permit] == [True, False]
    daemon.reload(config='[points.gone]\nmode = "shadow"\n')
    with daemon.client(point="gone") as c:
        assert c.ask(SECRET).reason.startswith(WOULD)
    with daemon.client(point="trial") as c:
        assert not c.ask(SECRET).permit
    warned = [(e.get("shadow"), e.get("off")) for e in daemon.events() if e["event"].startswith("points do not")]
    assert warned == [(["trial"], ["gone"]), (None, ["gone"]), (["gone"], None)]


def test_a_daemon_whose_points_all_enforce_warns_of_none(serve):
    daemon = serve(POLICIES, '[points.trial]\nrecord = "durable"\n')
    assert [e for e in daemon.events() if e["event"].startswith("points do not")] == []
    with daemon.client(point="trial") as c:
        assert c.stats()["points"] == {}


def test_no_reload_opens_a_point_of_a_daemon_without_a_record(serve):
    daemon = serve(POLICIES, '[record]\nkeep = "off"\n')
    daemon.configure('[record]\nkeep = "buffered"\n[points.trial]\nmode = "off"\n')
    os.kill(daemon.pid, signal.SIGHUP)
    assert "points.trial.mode" in daemon.wait_for("reload failed, the active policies stay")["reason"]
    with daemon.client(point="trial") as c:
        assert [c.ask().permit, c.ask(SECRET).permit] == [True, False]


def test_a_durable_pass_is_on_disk_first_and_counted_once(serve):
    daemon = serve(POLICIES, '[points.trial]\nmode = "shadow"\nrecord = "durable"\n')
    with daemon.client(point="trial") as c:
        assert [c.ask().permit, c.ask(SECRET).permit] == [True, True]
        assert [(each.permit, each.shadow) for each in recorded(daemon)] == [(True, True), (False, True)]
        assert c.stats()["points"]["trial"] == {"mode": "shadow", "passes": 2, "would_deny": 1, "faults": 0}


def test_explain_says_what_the_mode_tells_and_what_would_be_enforced(daemon):
    with daemon.client(point="trial") as c:
        told = c.explain(SECRET)
        assert (told["mode"], told["verdict"]["permit"], told["enforced"]["permit"]) == ("shadow", True, False)
        assert told["verdict"]["reason"] == WOULD + "nobody reads it"
        assert told["lifetime"]["ms"] == 0
        assert c.explain()["enforced"]["permit"]
    with daemon.client(point="gone") as c:
        told = c.explain(SECRET)
        assert (told["mode"], told["verdict"]["reason"], told["enforced"]["permit"]) == ("off", "off", False)
    with daemon.client() as c:
        told = c.explain(SECRET)
        assert ("mode" in told, told["verdict"]["permit"]) == (False, False)
    pepcore.connect(daemon.socket, deadline=5.0).block("User::alice", reason="b")
    with daemon.client(point="gone") as c:
        assert not c.explain()["verdict"]["permit"]
        assert c.explain(ask("User::bob"))["verdict"]["permit"]


def test_a_lease_of_a_shadowed_point_is_held_until_a_block_ends_it(daemon):
    client = pepcore.connect(daemon.socket, deadline=5.0, point="trial")
    with client.lease("User::eve", "read", "Document::secret") as lease:
        assert lease.verdict
        client.block("User::eve", reason="now")
        until = time.monotonic() + 5
        while lease and time.monotonic() < until:
            time.sleep(0.01)
        assert not lease


def test_a_lease_of_a_shadowed_point_is_held_where_the_policies_fail(daemon):
    """What faults lets pass like any other deny: nobody who asks for a lease may harm those who ask for answers."""
    client = pepcore.connect(daemon.socket, deadline=5.0, point="trial")
    workers = daemon.workers()
    with client.lease("User::err", "read", "Document::a") as lease, pepcore.connect(daemon.socket) as enforced:
        assert lease.verdict
        assert not enforced.lease("User::err", "read", "Document::a")
        assert not lease.wait(2.5), "it is asked about each second"
        assert enforced.check("User::alice", "read", "Document::a")
        client.block("User::err")
        assert lease.wait(5)
    (start,) = wait(daemon, bool, entries.LeaseStart)
    assert start.decision in {each.decision for each in decisions(daemon, 2)}
    assert daemon.workers() == workers
    assert not daemon.events("an error was not expected")


def test_a_lease_of_a_shadowed_point_is_asked_about_each_second_also_outside_its_window(serve):
    past = '@obligation("[{\\"id\\":\\"w\\",\\"type\\":\\"window\\",\\"properties\\":{\\"not_after\\":1}}]")\n'
    daemon = serve(past + '@id("then") permit(principal, action, resource);', MODES)
    with pepcore.connect(daemon.socket, deadline=5.0, point="trial") as client:
        lease = client.lease("User::ann", "read", "Document::a")
        before = client.stats()["asked"]
        assert not lease.wait(2.2)
        assert 1 <= client.stats()["asked"] - before <= 4
        with pepcore.connect(daemon.socket, deadline=5.0) as enforced:
            assert not enforced.lease("User::ann", "read", "Document::a")


def test_a_lease_of_a_shadowed_point_whose_pdp_hangs_is_held_and_costs_nothing(serve):
    daemon = hung(serve)
    with daemon.client(point="trial") as c, pepcore.connect(daemon.socket, deadline=5.0) as admin:
        c.send(check(ask(), 5, op=LEASE, deadline_us=100_000))
        held = c.read()
        assert (held.op, read_verdict(held.body).permit) == (LEASE | 0x80, True)
        before = admin.stats()
        time.sleep(2)
        after = admin.stats()
        assert after["leases"]["held"] == 1
        assert sum(after["faults"].values()) - sum(before["faults"].values()) <= 4
        assert after["process"]["cpu_ms"] - before["process"]["cpu_ms"] < 1000
        admin.block("User::alice")
        ended = c.read()
        assert (ended.op, ended.id, ended.body[24]) == (END_LEASE | 0x80, 5, 2)
        c.send(check(ask(), 6, op=LEASE, deadline_us=100_000))
        assert not read_verdict(c.read().body).permit
