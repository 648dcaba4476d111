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
        current: int,
    ) -> bool: ...
    def get(self, partition: int, key: bytes, now: int, current: int) -> tuple[bool, int, int, bytes] | None: ...
    def usage(self) -> dict[str, int]: ...
    def owned(self, owner: int) -> tuple[int, int]: ...
