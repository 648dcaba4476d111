from typing import NamedTuple

from .page import Page

class Stored(NamedTuple):
    permit: bool
    id: int
    expires: int
    revision: int
    payload: bytes
    stamps: bytes
    kept: bool

class Cache:
    def __new__(cls, *, slots: int, slab: int, seed: int, quota: float = 0.6) -> Cache: ...
    def put(
        self,
        owner: int,
        partition: int,
        key: bytes,
        payload: bytes,
        *,
        permit: bool,
        id: int,
        expires: int,
        revision: int,
        now: int,
        page: Page,
        stamps: bytes = b"",
        kept: bool = False,
    ) -> bool: ...
    def get(self, partition: int, key: bytes, now: int, page: Page) -> Stored | None: ...
    def count_from(self, now: int) -> None: ...
    def harvest(self, now: int, most: int = ...) -> tuple[list[tuple[int, int, int, int, int]], int]: ...
    @property
    def unharvested(self) -> int: ...
    def usage(self) -> dict[str, int]: ...
    def owned(self, owner: int) -> tuple[int, int]: ...
