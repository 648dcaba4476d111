from collections.abc import Sequence
from typing import Any

from ..model import Action, Entity

def compose(
    subject: str | Entity | dict[str, Any],
    action: str | Action | dict[str, Any],
    resource: str | Entity | dict[str, Any],
    context: dict[str, Any] | None = None,
    chain: Sequence[str | Entity | dict[str, Any]] = (),
) -> bytes: ...
