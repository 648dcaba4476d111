"""Taking access away: revokes, and the list of blocks in front of the PDP (DESIGN, D4).

Promises: the effect is there when a call returns: what hung on a tag is served by nobody any more, and whoever is
blocked is denied. The caller records it afterwards, then acknowledges it.
Never: waits for a disk; answers a request (the enforcer does).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .blocks import Block, Blocks
from .core.page import Page
from .core.tags import slot
from .model import Decision


class Revocation:
    """The page and the blocks of one enforcer. Each call returns the revision from which on it holds."""

    def __init__(self, page: Page, blocks: Blocks | None = None) -> None:
        self.page = page
        self.blocks = Blocks() if blocks is None else blocks

    def revoke(self, tags: Iterable[str]) -> int:
        """End every answer that hangs on one of these tags."""
        return self.page.revoke([slot(self.page, tag) for tag in tags])

    def revoke_all(self) -> int:
        """End every answer."""
        return self.page.bump()

    def block(self, block: Block) -> int:
        """Deny whoever bears a tag from now on."""
        self.blocks.add(block)
        return self.revoke((block.tag,))

    def lift(self, tag: str) -> int:
        """Let the PDP decide again about whoever bears a tag."""
        self.blocks.lift(tag)
        return self.revoke((tag,))

    def denied(self, key: bytes, wall_ms: int) -> Decision | None:
        """The deny that stands in front of the PDP for this canonical question, or None."""
        block = self.blocks.match(key, wall_ms) if self.blocks else None
        if block is None:
            return None
        left = max(1, block.until - wall_ms) if block.until else None
        reason = f"blocked: {block.reason}" if block.reason else "blocked"
        return Decision(False, reason=reason, max_age_ms=left, timed=True)

    def explain(self, explanation: dict[str, Any], key: bytes, wall_ms: int) -> None:
        """Say in an explanation what a block makes of it."""
        denied = self.denied(key, wall_ms)
        if denied is not None:
            explanation["verdict"] |= {"permit": False, "reason": denied.reason}
            explanation["lifetime"] = {"ms": 0, "why": "a block stands until it is lifted or over"}
