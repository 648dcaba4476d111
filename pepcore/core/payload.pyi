from collections.abc import Sequence
from typing import Any, final

@final
class Headers:
    items: Sequence[tuple[str, str]]
    def __init__(self, items: Sequence[tuple[str, str]]) -> None: ...
    def __eq__(self, other: object) -> bool: ...

@final
class Rows:
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...
    def __eq__(self, other: object) -> bool: ...
