from typing import Any, Final, final

MAX_PAYLOAD_DEPTH: Final[int]
MAX_VALUES: Final[int]

@final
class Program:
    data: bool
    headers: bool
    def run(self, payload: Any) -> Any: ...
    def run_json(self, data: bytes) -> bytes: ...
