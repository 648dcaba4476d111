from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, final

from ..model import Action, Entity
from .counts import Counts
from .page import Page
from .verdict import Verdict

@final
class Local:
    def __new__(cls, page: Page, miss: Callable[..., Verdict], *, slots: int = 8192) -> Local: ...
    @property
    def page(self) -> Page: ...
    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def evictions(self) -> int: ...
    def check(
        self,
        subject: str | Entity | dict[str, Any],
        action: str | Action | dict[str, Any],
        resource: str | Entity | dict[str, Any],
        context: dict[str, Any] | None = None,
        *,
        on_behalf_of: Sequence[str | Entity | dict[str, Any]] = (),
        not_after: datetime | float | None = None,
        min_revision: tuple[int, int] | Verdict | None = None,
    ) -> Verdict: ...
    def look(
        self, subject: object, action: object, resource: object, context: object = None, chain: object = ()
    ) -> Verdict | None: ...
    def put(
        self, subject: object, action: object, resource: object, context: object, verdict: Verdict, chain: object = ()
    ) -> None: ...
    def clocks_read(self, now: int, wall_ms: int) -> None: ...
    def clear(self) -> None: ...
    def renew(self, page: Page, counts: Counts | None = None) -> None: ...
    def usage(self) -> dict[str, int]: ...
