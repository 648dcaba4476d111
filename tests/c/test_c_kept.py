"""What the C client keeps under the daemon's page: what hits, what must not, what is not used as a page.

Promises: each refusal has a hit beside it that differs in just that. What a revoke ends is compared with the compiled
table of the Python client in test_c_histories.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import frames
import pytest
from harness import ROOT, SANITIZE, Driver, Peer, compile_c
from pages import BOOT, KEEP, LEASE, LEASE_NS, REVISION, SEALS, SIZE, SLOT, Daemon, body, now_ns

from pepcore.core.counts import Counts
from pepcore.server.sharing import make_counts
from tests.wall_clock import Wall

Serve = Callable[..., Peer]
PAYLOAD = {"obligations": [["o", "mask", {"keep": 4}]], "policies": ["p", "q"], "reason": "owner"}


@pytest.fixture
def daemon(serve: Serve) -> Iterator[Daemon]:
    made = Daemon(serve)
    yield made
    made.page.close()


def question(driver: Driver, resource: bytes = b"Document::roadmap") -> None:
    driver("new")
    assert driver("ask", b"User::alice", b"read", resource) == "ok"


def client(driver: Driver, daemon: Daemon, slots: int = 0) -> None:
    assert driver("connect", daemon.peer.path, b"", b"mask") == "ok"
    assert driver("keep", slots) == "ok"
    question(driver)


def test_a_hit_is_answered_without_a_word_on_the_socket(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    daemon.answer = lambda: body(daemon.page, 1, PAYLOAD)
    first = daemon.asked(driver)
    assert (first["permit"], first["cached"], driver("page_error")) == (True, False, "none")
    again = [daemon.kept(driver) for _ in range(3)]
    for answer in again:
        assert KEEP - 60_000 < answer["lifetime_ms"] <= KEEP
        same = {"cached": True, "lifetime_ms": answer["lifetime_ms"], "took_us": answer["took_us"]}
        assert answer == {**first, **same}
    question(driver, b"Document::other")
    assert not daemon.asked(driver)["cached"]
    assert (daemon.peer.connections, driver("held")) == (1, "2")


def test_a_deny_is_kept_too_and_says_why(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    daemon.answer = lambda: body(daemon.page, 0, {"reason": "not yours"})
    assert not daemon.asked(driver)["permit"]
    kept = daemon.kept(driver)
    assert (kept["permit"], kept["fault"], kept["reason"]) == (False, 0, "not yours")


def test_who_does_not_keep_asks_for_no_page_and_takes_none(driver: Driver, daemon: Daemon) -> None:
    assert driver("connect", daemon.peer.path, b"", b"mask") == "ok"
    question(driver)
    assert [daemon.asked(driver)["cached"] for _ in range(3)] == [False] * 3
    assert b"page" not in daemon.hellos[0]
    assert open_files(driver) == ["socket"]
    assert (driver("page_error"), driver("held")) == ("none", "0")


def test_the_hello_asks_for_the_page_in_canonical_form(driver: Driver, daemon: Daemon) -> None:
    for point, handles in ((b"", []), (b"p" * 64, [f"h{i:02}" for i in range(64)])):
        driver("connect", daemon.peer.path, point, *(h.encode() for h in handles))
        plain = frames.pack({"client": "pepcore.h/0.1.0", "handles": handles, "point": point.decode(), "versions": [1]})
        assert driver("hello") == frames.frame(frames.HELLO, 1, plain).hex()
        assert driver("keep", 8) == "ok"
        fields = {"client": "pepcore.h/0.1.0", "handles": handles, "page": True, "point": point.decode()}
        assert driver("hello") == frames.frame(frames.HELLO, 1, frames.pack({**fields, "versions": [1]})).hex()


def test_keep_is_refused_where_it_cannot_work(driver: Driver, daemon: Daemon) -> None:
    assert "call pep_connect first" in driver("keep", 0)
    driver("connect", daemon.peer.path, b"")
    assert "PEP_MAX_KEPT_SLOTS" in driver("keep", 65537)
    question(driver)
    daemon.asked(driver)
    assert "before the first check" in driver("keep", 0)
    driver("connect", daemon.peer.path, b"")
    assert driver("keep", 65536) == "ok"
    assert "already" in driver("keep", 0)


def test_only_a_revoke_of_its_own_slot_ends_an_answer(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    daemon.answer = lambda: body(daemon.page, stamps=[65535, 3])
    daemon.asked(driver)
    for other in (4, 65534, 0):
        daemon.page.revoke(other)
        daemon.kept(driver)
    for own in (3, 65535):
        daemon.page.revoke(own)
        assert not daemon.asked(driver)["cached"]
        daemon.kept(driver)


def test_an_answer_without_slots_hangs_on_the_revision(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    daemon.answer = lambda: body(daemon.page, stamps=[])
    daemon.asked(driver)
    daemon.kept(driver)
    daemon.page.revoke(9)
    daemon.asked(driver)
    daemon.kept(driver)


@pytest.mark.parametrize("stamps", [[], [7], [*range(31), 7]])
def test_an_answer_that_a_revoke_crossed_is_not_kept(driver: Driver, daemon: Daemon, stamps: list[int]) -> None:
    client(driver, daemon)
    daemon.asked(driver)
    daemon.page.revoke(7)
    daemon.answer = lambda: body(daemon.page, revision=daemon.page.revision - 1, stamps=stamps)
    assert [daemon.asked(driver)["permit"] for _ in range(2)] == [True] * 2
    daemon.answer = lambda: body(daemon.page, stamps=stamps)
    daemon.asked(driver)
    daemon.kept(driver)


@pytest.mark.parametrize("lease", [0, "lapsed", "ahead", "far", "wrapped"])
def test_without_a_lease_nothing_hits_and_with_it_again(driver: Driver, daemon: Daemon, lease: int | str) -> None:
    client(driver, daemon)
    daemon.asked(driver)
    daemon.kept(driver)
    later = {"lapsed": now_ns() - 1, "ahead": now_ns() + 10 * LEASE_NS, "far": now_ns() + 60 * 10**9}
    later["wrapped"] = 2**64 - 1
    daemon.page.put(LEASE, later[lease] if isinstance(lease, str) else lease)
    before = len(daemon.questions)
    assert [driver.check()["cached"] for _ in range(2)] == [False] * 2
    assert len(daemon.questions) == before + 2
    daemon.kept(driver)


def test_a_daemon_that_is_gone_is_noticed_within_the_lease(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    daemon.asked(driver)
    daemon.kept(driver)
    daemon.peer.close()
    time.sleep(0.15)
    gone = driver.check()
    assert (gone["permit"], gone["fault"]) == (False, 10)


@pytest.mark.parametrize(
    "told",
    [
        {"keep": 0},
        {"keep": 0, "lifetime": 0},
        {"permit": 0, "fault": 8},
        {"boot": 12},
        {"payload": {"obligations": [["o", "redact", {}]]}},
        {"payload": {"reason": "x" * 1500}},
    ],
    ids=["keep", "lifetime", "fault", "boot", "obligation", "size"],
)
def test_what_may_not_be_kept_is_asked_each_time(driver: Driver, daemon: Daemon, told: dict[str, Any]) -> None:
    client(driver, daemon)
    daemon.answer = lambda: body(daemon.page, **told)
    for _ in range(3):
        daemon.asked(driver)
    assert driver("held") == "0"
    daemon.answer = lambda: body(daemon.page)
    daemon.asked(driver)
    daemon.kept(driver)


def test_the_bound_is_on_question_and_answer_together(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    for extra, hits in ((0, True), (1, False)):
        question(driver)
        driver("string", 3, b"x", b"y" * 700)
        size = len(driver("seal")) // 2
        reason = 1536 + extra - size - 40 - 2 - 11  # the body, its slot, and the map around the reason
        answer = body(daemon.page, 1, {"reason": "z" * reason})
        daemon.answer = partial(bytes, answer)
        assert len(answer) + size == 1536 + extra
        daemon.asked(driver)
        (daemon.kept if hits else daemon.asked)(driver)
        daemon.page.revoke(7)


def test_an_answer_expires(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    daemon.answer = lambda: body(daemon.page, keep=40, lifetime=KEEP)
    daemon.asked(driver)
    time.sleep(0.05)
    daemon.asked(driver)
    daemon.answer = lambda: body(daemon.page, keep=20_000, lifetime=30_000)
    time.sleep(0.05)
    daemon.asked(driver)
    time.sleep(0.1)
    assert 9_000 < daemon.kept(driver)["lifetime_ms"] <= 29_900


def test_not_after_is_honoured_on_a_hit(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    daemon.asked(driver)
    for ahead, hits in ((60_000, True), (-1, False), (0, False)):
        question(driver)
        wall = time.time_ns() // 1_000_000
        driver("not_after", wall + ahead)
        answer = (daemon.kept if hits else daemon.asked)(driver)
        if hits:
            assert 0 < answer["lifetime_ms"] <= ahead
    question(driver)
    daemon.kept(driver)


SECOND_NS = 1_000_000_000


@pytest.fixture
def clock(tmp_path: Path) -> Wall:
    return Wall(tmp_path)


@pytest.fixture
def watched(programs: dict[str, Path], clock: Wall) -> Iterator[Driver]:
    """A driver whose wall clock the test sets."""
    driver = Driver(programs["plain"], env=clock.env)
    yield driver
    driver.close()


@pytest.mark.parametrize("by", [7200, -7200, 1.5, -1.5])
def test_a_wall_clock_that_is_set_ends_what_is_kept(watched: Driver, daemon: Daemon, clock: Wall, by: float) -> None:
    """Its windows were measured on the old one, and the daemon may be asleep: what it would say is asked."""
    client(watched, daemon)
    for name in (b"Document::1", b"Document::2"):
        question(watched, name)
        daemon.asked(watched)
        daemon.kept(watched)
    clock.move(int(by * SECOND_NS))
    for name in (b"Document::2", b"Document::1"):
        question(watched, name)
        daemon.asked(watched)
        daemon.kept(watched)


def test_a_wall_clock_that_is_slewed_ends_nothing_until_it_adds_up(
    watched: Driver, daemon: Daemon, clock: Wall
) -> None:
    client(watched, daemon)
    daemon.asked(watched)
    clock.move(int(0.6 * SECOND_NS))
    daemon.kept(watched)
    clock.move(int(0.6 * SECOND_NS))
    daemon.asked(watched)
    daemon.kept(watched)


def test_a_wall_clock_that_is_set_before_the_first_hit_is_seen_too(
    watched: Driver, daemon: Daemon, clock: Wall
) -> None:
    client(watched, daemon)
    daemon.asked(watched)
    clock.move(7200 * SECOND_NS)
    daemon.asked(watched)
    daemon.kept(watched)


def test_a_min_revision_is_asked_each_time(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    driver("min_revision", 0, 0)
    daemon.asked(driver)
    daemon.asked(driver)
    assert driver("held") == "0"
    question(driver)
    daemon.asked(driver)
    daemon.kept(driver)
    driver("min_revision", 0, 0)
    daemon.asked(driver)


def open_files(driver: Driver) -> list[str]:
    """What the driver has open beside its standard streams."""
    links = [os.readlink(entry) for entry in Path(f"/proc/{driver.process.pid}/fd").iterdir() if int(entry.name) > 2]
    return sorted(link.partition(":")[0] for link in links)


F_SEAL_EXEC = 0x20  # as vm.memfd_noexec adds it
SEAL, SIZES, MAGIC = "do not hold its size", "another size", "magic is wrong"


@pytest.mark.parametrize(
    ("page", "told", "says"),
    [
        ({}, {}, ""),
        ({"seals": SEALS | F_SEAL_EXEC}, {}, ""),
        ({"seals": SEALS & ~fcntl.F_SEAL_SHRINK}, {}, SEAL),
        ({"seals": SEALS & ~fcntl.F_SEAL_GROW}, {}, SEAL),
        ({"seals": SEALS & ~0x10}, {}, SEAL),
        ({"seals": SEALS & ~fcntl.F_SEAL_SEAL}, {}, SEAL),
        ({"size": SIZE - 8}, {}, SIZES),
        ({"size": SIZE + 4096}, {}, SIZES),
        ({"size": 4096}, {}, SIZES),
        ({"magic": b"PEPPAGE2"}, {}, MAGIC),
        ({"magic": b"1EGAPPEP"}, {}, MAGIC),
        ({"boot": 12}, {"boot": 11}, "boot id is not"),
        ({"boot": 0}, {"boot": 0}, "boot id is not"),
        ({}, {"page": False}, "offers none"),
    ],
)
def test_a_page_that_is_none_is_not_used_and_why_is_told_once(
    driver: Driver, serve: Serve, page: dict[str, Any], told: dict[str, Any], says: str
) -> None:
    try:
        daemon = Daemon(serve, **page)
    except OSError:
        if page.get("seals", 0) & F_SEAL_EXEC:
            pytest.skip("this kernel does not know that seal")
        raise
    daemon.told |= told
    client(driver, daemon)
    daemon.answer = lambda: body(daemon.page, boot=daemon.told["boot"])
    daemon.asked(driver)
    if not says:
        daemon.kept(driver)
        assert driver("page_error") == "none"
    else:
        assert daemon.asked(driver)["permit"]
        assert says in driver("page_error")
        assert driver("page_error") == "none"
        driver("connect", daemon.peer.path, b"")
    daemon.page.close()


def test_a_page_that_is_no_memfd_is_not_used(driver: Driver, daemon: Daemon, tmp_path: Path) -> None:
    copy = tmp_path / "page"
    copy.write_bytes(daemon.page.memory[:])
    with copy.open("rb") as other:
        daemon.sends = [other.fileno()]
        client(driver, daemon)
        daemon.asked(driver)
        daemon.asked(driver)
    assert SEAL in driver("page_error")


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (0, "did not come"),
        (1, ""),
        (2, "the counts have another size"),
        (4, "more than two"),
        (5, "more than two"),
        (250, "more than"),
    ],
)
def test_descriptors_that_nobody_asked_for_are_closed(driver: Driver, daemon: Daemon, count: int, says: str) -> None:
    daemon.sends *= count
    client(driver, daemon)
    daemon.asked(driver)
    (daemon.asked if says else daemon.kept)(driver)
    assert says in driver("page_error")
    assert open_files(driver) == ["socket"]


@pytest.mark.parametrize(
    ("limit", "says"), [(4, "did not come"), (5, "more than two"), (6, "the counts have another size")]
)
def test_a_page_is_not_taken_from_descriptors_of_which_the_kernel_dropped_some(
    programs: dict[str, Path], daemon: Daemon, limit: int, says: str
) -> None:
    """The streams and the socket have 0 to 3: what comes above the limit is closed by the kernel."""
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, limit))
    driver = Driver(programs["plain"], preexec_fn=few)
    client(driver, daemon)
    daemon.sends *= 2
    daemon.asked(driver)
    daemon.asked(driver)
    assert says in driver("page_error")
    assert open_files(driver) == ["socket"]
    if limit > 4:
        daemon.sends = daemon.sends[:1]
        client(driver, daemon)
        daemon.asked(driver)
        daemon.kept(driver)
    driver.close()


def counted(boot: int) -> tuple[Counts, int]:
    """Counts as a daemon makes them for one client, and their descriptor."""
    return make_counts(boot)


def test_hits_are_counted_where_the_daemon_fetches_them(driver: Driver, daemon: Daemon) -> None:
    counts, fd = counted(daemon.told["boot"])
    daemon.sends = [daemon.page.fd, fd]
    client(driver, daemon)
    daemon.asked(driver)
    number = counts.harvest()
    assert number == ([], 0)
    for _ in range(3):
        daemon.kept(driver)
    found, lost = counts.harvest()
    assert [count for _, count in found] == [3]
    assert lost == 0
    daemon.kept(driver)
    assert counts.harvest() == ([(found[0][0], 1)], 0)
    os.close(fd)


@pytest.mark.parametrize(("boot", "cut", "says"), [(99, 0, "not those of this daemon"), (11, 8, "another size")])
def test_a_client_that_cannot_count_keeps_nothing(
    driver: Driver, daemon: Daemon, boot: int, cut: int, says: str
) -> None:
    counts, fd = counted(boot)
    if cut:
        os.close(fd)
        fd = os.memfd_create("cut")
        os.ftruncate(fd, 4096)

        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 7)
    daemon.sends = [daemon.page.fd, fd]
    client(driver, daemon)
    daemon.asked(driver)
    daemon.asked(driver)
    assert driver("page_error")
    assert counts.harvest() == ([], 0)
    daemon.sends = [daemon.page.fd]
    client(driver, daemon)
    daemon.asked(driver)
    daemon.kept(driver)
    os.close(fd)


@pytest.mark.parametrize("ahead_ns", [-(10**9), 10**9])
def test_a_page_of_a_daemon_with_another_clock_is_not_used(driver: Driver, daemon: Daemon, ahead_ns: int) -> None:
    daemon.told["now"] = now_ns() + ahead_ns
    client(driver, daemon)
    daemon.asked(driver)
    daemon.asked(driver)
    assert "another clock" in driver("page_error")
    del daemon.told["now"]
    client(driver, daemon)
    daemon.asked(driver)
    daemon.kept(driver)


def test_a_descriptor_of_a_welcome_that_is_refused_is_closed(driver: Driver, daemon: Daemon) -> None:
    for number, wrong in enumerate(({"version": 2}, {"version": 1, "page": 1}), 1):
        daemon.told |= wrong
        client(driver, daemon)
        assert driver.check()["fault"] == 1
        assert open_files(driver) == []
        while len(daemon.questions) < number:  # it was sent along with the hello
            time.sleep(0.001)
    daemon.told["page"] = True
    daemon.asked(driver)
    daemon.kept(driver)


def test_the_mapping_is_read_only_and_goes_with_the_client(driver: Driver, daemon: Daemon) -> None:
    def mapped() -> list[str]:
        maps = Path(f"/proc/{driver.process.pid}/maps").read_text().splitlines()
        return [line.split()[1] for line in maps if "/memfd:page" in line]

    client(driver, daemon)
    daemon.asked(driver)
    assert mapped() == ["r--s"]
    driver("connect", daemon.peer.path, b"")
    assert mapped() == []
    assert open_files(driver) == []


def test_another_boot_ends_what_was_kept_and_the_same_does_not(driver: Driver, serve: Serve) -> None:
    first = Daemon(serve)
    client(driver, first)
    first.asked(driver)
    question(driver, b"Document::other")
    first.asked(driver)
    first.peer.close()
    first.kept(driver)  # its lease still runs

    first.peer = serve(first.behave)
    question(driver, b"Document::third")
    first.asked(driver)
    assert (first.peer.connections, driver("held")) == (1, "3")
    question(driver)
    first.kept(driver)
    first.peer.close()

    second = Daemon(serve, boot=12)
    question(driver, b"Document::fourth")
    second.asked(driver)
    assert driver("held") == "1"
    second.kept(driver)
    for name in (b"Document::roadmap", b"Document::other"):
        question(driver, name)
        first.page.renew()
        second.asked(driver)
    second.peer.close()

    third = Daemon(serve, boot=13, size=4096)
    question(driver, b"Document::fifth")
    third.asked(driver)
    assert driver("held") == "0", "the page of the one before must not be believed any more"
    assert SIZES in driver("page_error")


def test_a_forked_child_has_none_of_its_parents_answers(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon)
    daemon.asked(driver)
    daemon.page.renew()
    before = len(daemon.questions)
    answers = [json.loads(driver("fork", 2000, 2))]
    assert driver.process.stdout is not None
    answers += [json.loads(driver.process.stdout.readline()) for _ in range(2)]
    assert [answer["permit"] for answer in answers] == [True] * 3
    assert [answer["cached"] for answer in answers] == [False, True, True]
    assert (len(daemon.questions), daemon.peer.connections) == (before + 1, 2)


def test_obligations_of_a_kept_verdict_outlive_a_fork(driver: Driver, daemon: Daemon) -> None:
    """The table is wiped in the child, a verdict that the parent took from it must not be."""
    client(driver, daemon)
    daemon.answer = lambda: body(daemon.page, 1, PAYLOAD)
    daemon.asked(driver)
    kept = daemon.kept(driver)
    daemon.page.renew()
    answer = json.loads(driver("fork_after", 2000))
    assert answer["cached"]
    assert answer["obligations"] == kept["obligations"] == PAYLOAD["obligations"]
    assert answer["reason"] == "owner"


def test_a_hit_makes_no_system_call(programs: dict[str, Path], daemon: Daemon) -> None:
    alone = Driver(programs["plain"])
    answer = alone.process.communicate("strict 0 1\n", timeout=20)[0]
    if answer != "ok\n":
        pytest.skip("the clock of this machine is a system call")
    driver = Driver(programs["plain"])
    client(driver, daemon)
    daemon.asked(driver)
    daemon.kept(driver)
    daemon.page.renew()
    assert driver("strict", 1000, 2000) == "ok"
    assert driver.process.wait(20) == 0
    missing = Driver(programs["plain"])
    client(missing, daemon)
    daemon.asked(missing)
    daemon.page.renew(-1)
    with pytest.raises(AssertionError):
        missing("strict", 1, 2000)
    assert missing.process.returncode == -signal.SIGSYS


@pytest.fixture(scope="session")
def one_hash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver where every question has the same hash."""
    out = tmp_path_factory.mktemp("hash") / "drive"
    return compile_c(ROOT / "tests/c/drive.c", out, *SANITIZE, "-DPEP_I_HASH(p,len,seed)=((void)(p),(void)(len),0u)")


def test_equal_hashes_are_no_equal_questions_and_a_set_holds_eight(one_hash: Path, daemon: Daemon) -> None:
    driver = Driver(one_hash)
    client(driver, daemon, 64)
    names = [b"Document::%d" % number for number in range(8)] + [b"Document::77", b"Document::7\x00"]
    for number, name in enumerate(names[:8]):
        daemon.answer = partial(body, daemon.page, number % 2)
        question(driver, name)
        daemon.asked(driver)
    for number, name in enumerate(names[:8]):
        question(driver, name)
        assert daemon.kept(driver)["permit"] == bool(number % 2)
    assert driver("held") == "8"
    driver("new")
    driver("ask", b"User::alice", b"read", b"Document::7")
    driver("behalf", b"User::bob")
    daemon.asked(driver)
    assert driver("held") == "8"
    driver.close()


def test_the_table_is_bounded_and_what_is_asked_for_stays(driver: Driver, daemon: Daemon) -> None:
    client(driver, daemon, 9)  # two sets of 8
    question(driver, b"Document::hot")
    daemon.asked(driver)
    for number in range(60):
        question(driver, b"Document::%d" % number)
        daemon.asked(driver)
        question(driver, b"Document::hot")
        daemon.kept(driver)
    assert driver("held") == "16"


def test_words_of_the_page_lie_where_the_specification_says() -> None:
    assert (BOOT, LEASE, REVISION, SLOT, SIZE, LEASE_NS) == (1, 2, 3, 512, 528384, 10**8)
    assert struct.pack("<Q", 0x3145474150504550) == b"PEPPAGE1"
