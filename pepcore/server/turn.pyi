from collections.abc import Callable

from ..core.gate import Gate, Stream

class Served:
    owner: int
    others_ns: int
    contested: bool
    holds: Callable[[], bool] | None
    def wall_was_set(self, now: int, wall_ms: int) -> bool: ...

class Share:
    spent_ns: int
    @property
    def used_up(self) -> bool: ...

class Turn:
    passed: int
    passed_too: int
    given: Callable[[], None] | None
    def __new__(
        cls,
        fd: int,
        gate: Gate,
        stream: Stream,
        served: Served,
        share: Share,
        owner: int,
        rest: Callable[[int, int, bool, bytes], None],
        later: Callable[[], None],
        ended: Callable[[Exception | None], None],
    ) -> Turn: ...
    def readable(self) -> None: ...
    def again(self) -> None: ...
    def close(self) -> None: ...
