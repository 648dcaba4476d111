"""The engine's call, and what it said.

Promises: the same call and the same answer as `cedarpy.is_authorized`, which wraps this one in objects and reads its
JSON with the standard library: a fifth of the whole call, on every miss. The call is private to cedarpy, whose version
is therefore pinned to one minor release; `tests/soundness` compares each answer with the public one's.
Never: reads an answer loosely: one that is not what is declared here is refused by the decoder.
"""

from __future__ import annotations

from typing import Any

import msgspec
from cedarpy import Entities, PolicySet, Schema
from cedarpy._internal import is_authorized_batch


class Diagnostics(msgspec.Struct, frozen=True):
    """Names of the determining policies (absent where there is no decision), and texts of what failed."""

    reason: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class Said(msgspec.Struct, frozen=True):
    """`decision`: `Allow`, `Deny`, or `NoDecision` where the request could not be evaluated."""

    decision: str
    diagnostics: Diagnostics


_read = msgspec.json.Decoder(Said).decode


def evaluate(request: dict[str, Any], policies: PolicySet, entities: Entities, schema: Schema | None) -> Said:
    """Evaluate one request; its context is JSON text. Raises ValueError for handles or members that cannot be."""
    (answer,) = is_authorized_batch([request], policies, entities._inner, schema, False)
    return _read(answer)
