"""Links of Cedar templates: what Cedar text has no words for, from `*.links.json` or a `links` argument.

A list of `{"templateId": ID, "newId": ID, "values": {"?principal": UID, "?resource": UID}}`, as in Cedar's
JSON form of a policy set; a UID is `{"type": ..., "id": ...}` or the same under `__entity`, and
`templateId` is the template's `@id`.

Promises: a link fills exactly the slots of its template, and is then a policy like any other, with the
template's effect, conditions and annotations under its own id. Every error names the file (line 1: JSON
keeps no lines) and the link. Never: changes or drops a template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from cedarpy import PolicySet

from ..errors import PolicyError
from .cedar_annotations import CheckObligation, read_notes
from .cedar_policies import Policy, Side, Uid, taken
from .cedar_statements import PolicyFile

SLOTS = ("?principal", "?resource")


def add_links(
    policies: list[Policy],
    full: PolicySet,
    files: Sequence[PolicyFile],
    links: Sequence[dict[str, Any]],
    check: CheckObligation | None,
) -> tuple[list[Policy], PolicySet]:
    """Return policies and full set with the links added, numbered on after the statements."""
    sources = [(f.path, _read(f)) for f in files]
    if links:
        sources.append(("<links>", list(links)))
    by_id = {p.id: p for p in policies}
    result = list(policies)
    calls: list[dict[str, Any]] = []
    for file, rows in sources:
        for template_id, new_id, values in _rows(file, rows):
            template = by_id.get(template_id)
            if template is None or not template.template:
                reason = f"link `{new_id}`: no template has the id `{template_id}`; give one that `@id`"
                raise PolicyError(file, 1, reason)
            if new_id in by_id:
                raise PolicyError(file, 1, taken(new_id, by_id[new_id].statement))
            linked = _link(template, len(result), new_id, values, check)
            by_id[new_id] = linked
            result.append(linked)
            calls.append(link_call(linked, template.number, linked.number))
            try:
                full.with_linked_batch(calls[-1:])
            except ValueError as e:
                raise PolicyError(file, 1, f"link `{new_id}`: {e}") from None
    return result, full.with_linked_batch(calls) if calls else full


def link_call(linked: Policy, template: int, number: int) -> dict[str, Any]:
    """The arguments of `with_linked_batch`, for a set in which template and link have these places."""
    values = {slot: {"type": t, "id": i} for slot, (t, i) in linked.values.items()}
    return {"template_id": f"policy{template}", "new_id": f"policy{number}", "values": values}


def _link(template: Policy, number: int, new_id: str, values: dict[str, Uid], check: CheckObligation | None) -> Policy:
    statement, scope = template.statement, template.scope
    scope = scope._replace(
        principal=_fill(scope.principal, values.get("?principal")),
        resource=_fill(scope.resource, values.get("?resource")),
    )
    notes = read_notes(statement.file, statement.line, new_id, template.annotations, check)
    return replace(
        template, number=number, id=new_id, scope=scope, notes=notes, explicit_id=True, template=False,
        link_of=template.number, values=values,
    )  # fmt: skip


def _fill(side: Side, value: Uid | None) -> Side:
    kind, type_, uid = side
    return (kind, type_, value) if kind in ("eq", "in", "isin") and uid is None else side


def _read(file: PolicyFile) -> list[Any]:
    try:
        rows = json.loads(file.text)
    except ValueError as e:
        raise PolicyError(file.path, getattr(e, "lineno", 1), f"not JSON: {e}") from None
    if not isinstance(rows, list):
        raise PolicyError(file.path, 1, "links must be a JSON list of {templateId, newId, values}")
    return rows


def _rows(file: str, rows: list[Any]) -> Iterator[tuple[str, str, dict[str, Uid]]]:
    for n, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != {"templateId", "newId", "values"}:
            raise PolicyError(file, 1, f"link {n}: must have exactly `templateId`, `newId` and `values`")
        template, new, given = row["templateId"], row["newId"], row["values"]
        if not (isinstance(template, str) and isinstance(new, str) and template and new):
            raise PolicyError(file, 1, f"link {n}: `templateId` and `newId` must be non-empty strings")
        if not isinstance(given, dict) or not set(given) <= set(SLOTS):
            raise PolicyError(file, 1, f"link `{new}`: `values` may have only `?principal` and `?resource`")
        yield template, new, {slot: _uid(file, new, slot, value) for slot, value in given.items()}


def _uid(file: str, new: str, slot: str, value: Any) -> Uid:
    if isinstance(value, dict) and set(value) == {"__entity"}:
        value = value["__entity"]
    if isinstance(value, dict) and set(value) == {"type", "id"}:
        type_, ident = value["type"], value["id"]
        if isinstance(type_, str) and isinstance(ident, str):
            return type_, ident
    raise PolicyError(file, 1, f'link `{new}`: `{slot}` must be {{"type": ..., "id": ...}}')
