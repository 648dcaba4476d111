from collections.abc import Mapping, Sequence
from typing import Any

from ..model import Action, Entity

def compose(
    subject: str | Entity | Mapping[str, Any],
    action: str | Action | Mapping[str, Any],
    resource: str | Entity | Mapping[str, Any],
    context: Mapping[str, Any] | None = None,
    chain: Sequence[str | Entity | Mapping[str, Any]] = (),
) -> bytes: ...
