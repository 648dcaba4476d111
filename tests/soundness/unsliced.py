"""The engine without pepcore: the full policy set, the full store and what the question may add.

Written from DESIGN (D5, D7, D8), not from `pepcore.pdp`: two readings of one text that must agree.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cedarpy import Decision, Entities, PolicySet, Schema, is_authorized

from pepcore.model import Question

from .worlds import World

NOW_DECLARED = ("a4", "a5")  # the actions whose context has `now` in the schema of `expressions`
_NAMED = re.compile(r"error while evaluating policy `(policy\d+)`: (.*)", re.DOTALL)


@dataclass(frozen=True)
class Outcome:
    fault: bool
    permit: bool = False
    policies: tuple[str, ...] = ()
    errors: tuple[tuple[str, str], ...] = ()


class Unsliced:
    def __init__(self, w: World) -> None:
        self.typed = w.schema is not None
        self.schema = Schema.from_str(w.schema) if w.schema else None
        self.entities = w.entities
        self.held = {(e["uid"]["type"], e["uid"]["id"]) for e in w.entities}
        self.types = {t for t, _ in self.held}
        self.names = {f"policy{n}": f"p{n}" for n in range(len(w.policies))}
        self.effects = {f"p{n}": e for n, e in enumerate(w.effects)}
        handle = PolicySet.from_str("\n".join(w.policies))
        calls = []
        for n, link in enumerate(w.links, len(w.policies)):
            self.names[f"policy{n}"] = link["newId"]
            self.effects[link["newId"]] = self.effects[link["templateId"]]
            template = "policy" + link["templateId"][1:]
            calls.append({"template_id": template, "new_id": f"policy{n}", "values": link["values"]})
        self.policies = handle.with_linked_batch(calls) if calls else handle
        self.store = Entities.from_json_str(json.dumps(w.entities), self.schema)

    def decide(self, q: Question, wall_ms: int) -> Outcome:
        context = without_null(q.context)
        if q.chain:
            context["on_behalf_of"] = [{"__entity": {"type": e.type, "id": e.id}} for e in q.chain]
        if q.action.properties:
            context["action"] = without_null(q.action.properties)
        if not self.typed or q.action.name in NOW_DECLARED:
            when = datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="milliseconds")
            context["now"] = {"__extn": {"fn": "datetime", "arg": when.replace("+00:00", "Z")}}
        added: dict[tuple[str, str], Any] = {}
        for e in (q.subject, q.resource, *q.chain):
            attrs = without_null(e.properties)
            counts = attrs and e.type not in self.types
            if counts and added.setdefault((e.type, e.id), attrs) != attrs:
                return Outcome(True)
        entities = self.store
        if added:
            rows = [{"uid": {"type": t, "id": i}, "attrs": a, "parents": []} for (t, i), a in added.items()]
            try:
                entities = self.store.with_added_json_str(json.dumps(rows), self.schema)
            except ValueError:
                return Outcome(True)
        request = {
            "principal": {"type": q.subject.type, "id": q.subject.id},
            "action": {"type": "Action", "id": q.action.name},
            "resource": {"type": q.resource.type, "id": q.resource.id},
            "context": context,
        }
        result = is_authorized(request, self.policies, entities, self.schema)
        if result.decision is Decision.NoDecision:
            return Outcome(True)
        errors = []
        for text in result.diagnostics.errors:
            m = _NAMED.fullmatch(text)
            assert m, text
            errors.append((self.names[m[1]], m[2]))
        reasons = tuple(sorted(self.names[n] for n in result.diagnostics.reasons))
        fault = any(self.effects[p] == "forbid" for p, _ in errors)
        return Outcome(fault, result.decision is Decision.Allow and not fault, reasons, tuple(sorted(errors)))


def without_null(value: dict[str, Any]) -> dict[str, Any]:
    return {k: without_null(v) if isinstance(v, dict) else v for k, v in value.items() if v is not None}
