"""Who may ask what: the kernel's word for who is on the socket, the rules of the config, and partitions."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable

import pytest
from journal import wait
from raw import Error, ask

from pepcore.audit import entries
from pepcore.config import Peer as Rule
from pepcore.errors import Overloaded, Refused
from pepcore.model import Entity
from pepcore.server.peer import LAST_PARTITION, Peers, other_groups
from pepcore.wire import Hello

ALL = '@id("all")\npermit(principal, action, resource);\n'
UID = os.getuid()
TRY = """
import json
try:
    with Client(path) as c: v = c.ask(); print(json.dumps(["asked", v.permit]))
except (EOFError, ConnectionError): print(json.dumps(["closed"]))
"""


def rule(**keys: object) -> str:
    return "[[peers]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items())


def test_without_rules_any_user_may_ask_and_only_the_daemons_own_reads_statistics(serve, other_uid):
    daemon = serve(ALL)
    code = "import json\nwith Client(path) as c:\n c.send(frame(8, 1, b'')); e = c.answer()\n" \
           " print(json.dumps([c.ask().permit, e.code, e.field]))"  # fmt: skip
    assert other_uid(daemon, code).wait() == [True, 4, "stats"]
    with daemon.client() as c:
        assert c.stats()["connections"] == 1


def test_a_rule_admits_a_user_and_nobody_else(serve, other_uid):
    daemon = serve(ALL, config=rule(user=UID, administer=True) + rule(user=12345))
    assert other_uid(daemon, TRY).wait() == ["asked", True]
    assert other_uid(daemon, TRY, uid=12346).wait() == ["closed"]
    assert daemon.permits()


def test_a_rule_for_a_group_admits_by_the_primary_group(serve, other_uid):
    daemon = serve(ALL, config=rule(user=UID) + rule(group=777))
    assert other_uid(daemon, TRY, gid=777).wait() == ["asked", True]
    assert other_uid(daemon, TRY, gid=778).wait() == ["closed"]


def test_the_overflow_uid_is_refused_and_its_neighbour_is_not(serve, other_uid):
    daemon = serve(ALL)
    assert other_uid(daemon, TRY, uid=65534).wait() == ["closed"]
    assert other_uid(daemon, TRY, uid=65533).wait() == ["asked", True]
    assert "65534" in daemon.wait_for("a peer was refused")["reason"]


def test_a_peer_speaks_only_for_its_points(serve):
    daemon = serve(ALL, config=rule(user=UID, points=["gate-*", "ci"]))
    with daemon.client(greet=False) as c:
        for point, fine in (("gate-1", True), ("ci", True), ("", False), ("ci2", False), ("db", False)):
            got = c.greet(point=point)
            assert (got.op == 0x81) is fine, point
        assert c.ask(partition=1).permit
        assert isinstance(c.ask(partition=3), Error)


def test_a_peer_asks_only_for_its_subjects_alone_in_batches_and_explained(serve):
    daemon = serve(ALL, config=rule(user=UID, subjects=["User::alice", "Agent::*"]))
    with daemon.client() as c:
        assert c.ask().permit
        assert c.ask(ask("Agent::x::y")).permit
        for subject in ("User::bob", "User::alice2", "Robot::alice"):
            refused = c.ask(ask(subject))
            assert isinstance(refused, Error)
            assert (refused.code, refused.field) == (4, "subject")
            assert isinstance(c.explain(ask(subject)), Error)
            good, bad = c.ask_many([ask(), ask(subject)])
            assert (good.permit, bad.permit, bad.fault) == (True, False, 4)


def test_what_is_refused_is_counted_and_said_and_whom_a_peer_may_not_ask_for_is_on_record(serve):
    config = rule(user=UID, subjects=["User::alice"], administer=True) + '[points.quiet]\nrecord = "off"\n'
    daemon = serve(ALL, config=config)
    began = time.monotonic()
    with daemon.client(point="shop") as c:
        for n in range(200):
            c.ask(ask("Agent::evil", resource=f"Doc::{n}", context={"secret": "hunter2"}))
        c.ask_many([ask(), ask("Agent::evil")])
        c.greet(point="quiet")
        c.ask(ask("Agent::unseen"), partition=2)
        found = wait(daemon, lambda found: sum(each.count for each in found) >= 201, entries.Fault)
        assert c.stats()["faults"] == {"4": 202}
    assert len(found) <= time.monotonic() - began + 2, "one a second, however often it asks"
    assert {(each.what, each.uid, each.point) for each in found} == {("refused", UID, "shop")}
    assert all("may not ask for `Agent::evil`" in each.reason for each in found)
    event = daemon.wait_for("a peer asked for a subject that it may not ask for")
    assert (event["uid"], event["point"], event["subject"]) == (UID, "shop", "Agent::evil")
    assert "hunter2" not in daemon.log.read_text()


def test_what_is_malformed_is_counted_and_said_without_what_it_said(serve):
    daemon = serve(ALL, config=rule(user=UID, administer=True))
    with daemon.client() as c:
        for _ in range(50):
            assert isinstance(c.ask(b"\xc1hunter2"), Error)
        c.ask(partition=9)
        c.ask(not_after=1)
        assert c.stats()["faults"] == {"2": 50, "3": 1, "13": 1}
    events = [each for each in daemon.events("a request is malformed")]
    assert {(each["uid"], each["fault"]) for each in events} <= {(UID, "bad-question"), (UID, "bad-request")}
    assert 1 <= len(events) <= 2
    assert "hunter2" not in daemon.log.read_text()


def test_a_refused_subject_is_refused_also_where_another_peer_has_the_answer_cached(serve, other_uid):
    limited = rule(user=12345, subjects=["User::bob"], share="s")
    daemon = serve(ALL, config=rule(user=UID, share="s") + limited)
    assert daemon.permits()
    code = "print('[%d, %d]' % ((lambda c: (c.ask().permit, c.ask(ask('User::bob')).permit))(Client(path))))"
    assert other_uid(daemon, code).wait() == [0, 1]


def test_only_a_peer_that_administers_reads_statistics(serve):
    daemon = serve(ALL, config=rule(user=UID))
    with daemon.client() as c:
        c.send(b"\0" * 8 + b"\x01\x08" + b"\0" * 14)
        refused = c.answer()
        assert isinstance(refused, Error)
        assert (refused.code, refused.field) == (4, "stats")
    daemon.reload(config=rule(user=UID, administer=True))
    with daemon.client() as c:
        assert c.stats()["pid"] == daemon.pid


# ---- partitions ----


def test_nothing_cached_crosses_points_or_sets_of_handles(serve):
    daemon = serve(ALL)
    with daemon.client(greet=False) as c:
        for point, handles in (("", ()), ("p", ()), ("q", ()), ("p", ("redact",)), ("p", ("mask", "redact"))):
            c.greet(point=point, handles=handles)
        for partition in range(1, 6):
            first, again = c.ask(partition=partition), c.ask(partition=partition)
            assert (first.permit, first.cached) == (True, False)
            assert (again.permit, again.cached) == (True, True)
    with daemon.client(point="p") as c:  # the same partition from another connection
        assert c.ask().cached


def test_nothing_cached_crosses_users_unless_the_config_shares(serve, other_uid):
    code = "with Client(path) as c: print('[%d, %d]' % (lambda v: (v.permit, v.cached))(c.ask()))"
    daemon = serve(ALL)
    assert daemon.permits()
    assert other_uid(daemon, code).wait() == [1, 0]
    assert other_uid(daemon, code).wait() == [1, 1]
    assert other_uid(daemon, code, gid=7).wait() == [1, 0]
    shared = rule(user=UID, share="web") + rule(user=12345, share="web")
    daemon.reload(config=shared)
    assert daemon.permits()
    assert other_uid(daemon, code).wait() == [1, 1]


# ---- the rules themselves ----


def peers(*rules: Rule) -> Peers:
    return Peers(rules, "l", iter(range(1, 1000)))


@pytest.mark.parametrize(
    ("pattern", "kind", "name", "fine"),
    [
        ("Agent::*", "Agent", "a", True),
        ("Agent::*", "Agent", "a::b\n", True),
        ("Agent::*", "Agent::Admin", "a", False),
        ("Acme::User::*", "Acme::User", "a", True),
        ("Acme::User::*", "Acme::Users", "a", False),
        ("User::a?c", "User", "abc", False),
        ("User::a?c", "User", "a?c", True),
        ("User::[ab]", "User", "a", False),
        ("User::[ab]", "User", "[ab]", True),
        ("User::svc-*-prod", "User", "svc-1-prod", True),
        ("User::svc-*-prod", "User", "svc-1-test", False),
        ("User::alice", "User", "alice\n", False),
        ("*", "Any", "thing", True),
    ],
)
def test_a_subject_pattern_matches_type_and_id_each_as_a_whole(pattern, kind, name, fine):
    found = peers(Rule(subjects=(pattern,)))
    partition = found.partition(found.identify(1, 5, 5), Hello())
    assert found.admits(partition.number, Entity(kind, name)) is fine


def test_an_owner_keeps_its_number_over_a_change_of_the_rules():
    first = peers()
    assert [first.identify(1, uid, 1).owner for uid in (10, 20, 10)] == [0, 1, 0]
    second = Peers((Rule(user=20),), "l", iter(range(1, 9)), first.owners)
    assert second.identify(1, 20, 1).owner == 1
    with pytest.raises(Refused):
        second.identify(1, 10, 1)


def test_the_first_rule_that_matches_holds():
    found = peers(Rule(user=10, points=("a",)), Rule(points=("b",)))
    assert found.identify(1, 10, 1).rule.points == ("a",)
    assert found.identify(1, 11, 1).rule.points == ("b",)


def test_a_rule_for_a_group_holds_for_its_members_and_no_others():
    found = peers(Rule(group=2002))
    assert found.identify(1, 5, 2002).gid == 2002
    assert found.identify(1, 5, 7, frozenset({2002, 3})).gid == 7
    with pytest.raises(Refused):
        found.identify(1, 5, 7, frozenset({3}))


def test_the_groups_of_a_peer_are_those_the_kernel_knows():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert other_groups(ours) == frozenset(os.getgroups())


def in_groups(count: int, known: Callable[[socket.socket], frozenset[int]]) -> frozenset[int]:
    """What is known of a peer that is in so many groups: a child connects, since groups are those of connect time."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/s")
        listener.listen()
        pid = os.fork()
        if pid == 0:
            os.setgroups(range(3000, 3000 + count))
            socket.socket(socket.AF_UNIX).connect(f"{folder}/s")
            os._exit(0)
        with listener.accept()[0] as peer:
            os.waitpid(pid, 0)
            return known(peer)


@pytest.mark.skipif(UID != 0, reason="needs root to be in many groups")
@pytest.mark.parametrize("count", [0, 1, 256, 257, 65_536])
def test_all_groups_of_a_peer_are_known_however_many(count):
    assert in_groups(count, other_groups) == frozenset(range(3000, 3000 + count))


@pytest.mark.skipif(UID != 0, reason="needs root to be in many groups")
def test_a_peer_whose_groups_are_not_told_is_refused_and_one_whose_groups_are_is_not(monkeypatch):
    monkeypatch.setattr("pepcore.server.peer.ALL_GROUPS", 1028)
    assert len(in_groups(257, other_groups)) == 257
    with pytest.raises(Refused, match="does not tell"):
        in_groups(258, other_groups)


def test_a_peer_in_many_groups_does_not_escape_the_rule_that_restricts_one_of_them(serve, other_uid):
    daemon = serve(ALL, config=rule(group=3299, points=["narrow"]) + rule())
    code = "import os; os.setgroups(range(3000, 3000 + {n})); "
    code += "print(int(Client(path, greet=False).greet(point='wide').op == 0x81))"
    for n, admitted in ((299, 1), (300, 0), (200, 1)):
        assert other_uid(daemon, code.format(n=n), uid=0, gid=0).wait() == admitted, n


def test_a_partition_that_nobody_uses_gives_way_and_one_in_use_does_not(monkeypatch):
    monkeypatch.setattr("pepcore.server.peer.PARTITIONS_PER_OWNER", 2)
    found = peers()
    me = found.identify(1, 5, 5)
    used, left = (found.partition(me, Hello(point=point)) for point in "ab")
    with pytest.raises(Overloaded):
        found.partition(me, Hello(point="c"))
    found.let_go(left)
    assert found.partition(me, Hello(point="b")) is left  # who comes back finds his answers
    found.let_go(left)
    third = found.partition(me, Hello(point="c"))
    assert set(found.partitions) == {used.number, third.number}
    found.let_go(third)
    assert found.partition(me, Hello(point="b")).number not in (left.number, third.number)
    assert found.partition(found.identify(1, 6, 6), Hello(point="a")).owner != me.owner  # has room of its own


def test_when_the_numbers_of_partitions_have_run_out_a_new_one_is_refused_and_an_old_one_serves():
    found = Peers((), "l", iter(range(LAST_PARTITION, LAST_PARTITION + 9)))
    me = found.identify(1, 5, 5)
    last = found.partition(me, Hello(point="a"))
    with pytest.raises(Overloaded, match="restart"):
        found.partition(me, Hello(point="b"))
    assert found.partition(me, Hello(point="a")) is last
