"""One case: pepcore's slice against the whole, in decision, reasons, errors, faults and lifetime."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from pepcore.errors import Fault
from pepcore.pdp import cedar as engine
from pepcore.pdp.cedar import Cedar, load
from pepcore.pdp.cedar_times import UNKNOWN

from .unsliced import Outcome, Unsliced
from .worlds import Case, ask, make

PER_WORLD = 40


def sliced(cedar: Cedar, case: Case, exact: bool) -> Outcome:
    """What the engine says of the slice, before it becomes a Decision."""
    try:
        asked = cedar.ask(case.question, case.wall_ms, exact=exact)
        answered = engine.read(engine.evaluate(*engine.engine_arguments(asked, cedar.store)), asked.slice)
    except Fault:
        return Outcome(True)
    errors = tuple(sorted((p.id, text) for p, text in answered.errors))
    fault = any(p.effect == "forbid" for p, _ in answered.errors)
    reasons = tuple(sorted(p.id for p in answered.determining))
    return Outcome(fault, answered.permit and not fault, reasons, errors)


def difference(cedar: Cedar, whole: Unsliced, case: Case, r: Random) -> str:
    """Say how slice and whole differ on this case, or return an empty string."""
    exact = r.random() < 0.5
    found = sliced(cedar, case, exact)
    decision = cedar.decide([case.question], case.wall_ms)[0]
    if case.refused:
        return "" if found.fault and decision.fault and not decision.permit else f"not refused: {decision}"
    wanted = whole.decide(case.question, case.wall_ms)
    if found != wanted:
        return f"slice says {found}, whole says {wanted}"
    if (bool(decision.fault), decision.permit) != (wanted.fault, wanted.permit):
        return f"decide says {decision}, whole says {wanted}"
    if not wanted.fault and decision.policies != wanted.policies:
        return f"decide names {decision.policies}, whole names {wanted.policies}"
    return _lifetime(cedar, whole, case, r, wanted, decision.max_age_ms)


def _lifetime(cedar: Cedar, whole: Unsliced, case: Case, r: Random, wanted: Outcome, max_age: int | None) -> str:
    """Within the lifetime, the whole set must still say the same."""
    if wanted.fault:
        return ""
    clock = cedar.ask(case.question, case.wall_ms, exact=True).slice.reads.clock
    if clock and UNKNOWN in clock:
        return ""
    most = 3 * 86_400_000 if max_age is None else max_age
    for later in {most - 1, r.randrange(most)} if most > 0 else ():
        then = whole.decide(case.question, case.wall_ms + later)
        if (then.permit, then.policies, then.fault) != (wanted.permit, wanted.policies, wanted.fault):
            return f"lives {max_age} ms, but after {later} ms {then} instead of {wanted}"
    return ""


def run(seed: int, cases: int) -> Iterator[tuple[int, Case, str]]:
    """Yield (world seed, case, difference) for as many cases; the difference is empty where all is well."""
    done = 0
    while done < cases:
        world = make(seed)
        cedar = load("\n".join(world.policies), world.entities, world.schema, links=world.links)
        whole = Unsliced(world)
        r = Random(seed ^ 0x5EED)
        for _ in range(min(PER_WORLD, cases - done)):
            case = ask(r, world)
            yield seed, case, difference(cedar, whole, case, r)
            done += 1
        seed += 1
