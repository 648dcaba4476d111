from collections.abc import Callable

from ..core.gate import Gate, Stream

class Served:
    owner: int
    others_ns: int
    def wall_was_set(self, now: int, wall_ms: int) -> bool: ...

class Turn:
    def __new__(
        cls,
        fd: int,
        gate: Gate,
        stream: Stream,
        served: Served,
        owner: int,
        rest: Callable[[int, int, bool, bytes], None],
        ended: Callable[[], None],
    ) -> Turn: ...
    def readable(self) -> None: ...
    def again(self) -> None: ...
