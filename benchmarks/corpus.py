"""What the benchmarks ask: policies, entities and questions, made by rule, the same in every run.

Promises: every question is canonical and exactly QUESTION bytes long, has at most MATCHING policies able to match, and
is permitted by one of them; `UNIQUE` is the place in its frame where sixteen characters may change without changing
the answer. A small and a large set differ in numbers only: one pair of action and type, or 100 pairs over 50 actions
and 20 types, MATCHING policies each.
Never: draws a random number without a seed.
"""

from __future__ import annotations

import bisect
import itertools
import json
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct

from pepcore.wire import Op, header, pack

QUESTION = 128
HEADER = 24
MATCHING = 10
LEVELS = MATCHING
NONCE = "0" * 16
Uid = tuple[str, str]


class Corpus(Struct, frozen=True):
    """A policy set, its entities, and who can ask what."""

    statements: tuple[str, ...]
    entities: tuple[dict[str, Any], ...]
    asked: tuple[tuple[Uid, str, Uid], ...]
    """Subject, action, resource: each a question that is permitted."""

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "policies.cedar").write_text("\n".join(self.statements), "utf-8")
        (folder / "entities.json").write_text(json.dumps(self.entities), "utf-8")


def pairs(number: int) -> list[tuple[str, str]]:
    """So many pairs of action and type: 100 of them cover 50 actions and 20 types."""
    return [(f"a{j % 50:02d}", f"T{(j % 50 + 7 * (j // 50)) % 20:02d}") for j in range(number)]


def user(number: int) -> Uid:
    return "User", f"{number:08d}-1f0c-4a6b-9d51-c61b0d40a2e7"


def thing(kind: str, number: int) -> Uid:
    return kind, f"{number:08d}-77aa-42e8-8e35-d3c09be51f60.docx"


def corpus(policies: int, entities: int, questions: int = 1000) -> Corpus:
    """`policies` is a multiple of MATCHING. A fifth of the entities are users (at least 5), the rest resources."""
    of = pairs(policies // MATCHING)
    statements = [
        f'@id("p{p:02d}{k}") permit (principal, action == Action::"{action}", resource is {kind})'
        f" when {{ principal.level == {k} && resource.open }};"
        for p, (action, kind) in enumerate(of)
        for k in range(LEVELS)
    ]
    users = [user(i) for i in range(max(5, entities // 5))]
    kinds = sorted({kind for _, kind in of})
    things = [thing(kinds[i % len(kinds)], i) for i in range(entities - len(users))]
    made = [entity(u, {"level": i % LEVELS}) for i, u in enumerate(users)] + [entity(t, {"open": True}) for t in things]
    by_kind: dict[str, list[Uid]] = {}
    for t in things:
        by_kind.setdefault(t[0], []).append(t)
    draw = random.Random(7)
    asked = []
    for _ in range(questions):
        action, kind = draw.choice(of)
        asked.append((draw.choice(users), action, draw.choice(by_kind[kind])))
    return Corpus(tuple(statements), tuple(made), tuple(asked))


def entity(uid: Uid, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"uid": {"type": uid[0], "id": uid[1]}, "attrs": attributes, "parents": []}


def question(asked: tuple[Uid, str, Uid], nonce: str = NONCE) -> bytes:
    subject, action, resource = asked
    data = pack([[*subject, {}], [action, {}], [*resource, {}], {"request": nonce}, []])
    assert len(data) == QUESTION, len(data)
    return data


UNIQUE = HEADER + QUESTION - 1 - len(NONCE)


def check_frame(body: bytes) -> bytes:
    return header(Op.CHECK, 0, len(body), question=len(body), partition=1) + body


def hello_frame() -> bytes:
    body = pack({"client": "bench", "handles": [], "point": "", "versions": [1]})
    return header(Op.HELLO, 0, len(body)) + body


def write_keys(path: Path, questions: Iterable[bytes]) -> Path:
    """A key file for load.c: a hello, then checks."""
    with path.open("wb") as out:
        for frame in itertools.chain([hello_frame()], map(check_frame, questions)):
            out.write(struct.pack("<I", len(frame)) + frame)
    return path


def distinct(of: Corpus, number: int) -> Iterable[bytes]:
    """So many different questions, all permitted."""
    templates = [question(asked) for asked in of.asked]
    for i in range(number):
        template = templates[i % len(templates)]
        yield template[: QUESTION - 1 - len(NONCE)] + b"%016x" % i + template[-1:]


def zipf(universe: int, draws: int, exponent: float = 0.99, seed: int = 11) -> list[int]:
    """Ranks drawn by Zipf's law."""
    sums = list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(universe)))
    draw = random.Random(seed)
    return [bisect.bisect_left(sums, draw.random() * sums[-1]) for _ in range(draws)]
