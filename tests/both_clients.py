"""The blocking and the asyncio client behind the same plain calls, so that one test holds both to one promise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pepcore


class Both:
    """One of the two clients behind plain calls; the asyncio one runs on a loop of its own."""

    def __init__(self, kind: str, **settings: Any) -> None:
        self.loop = asyncio.new_event_loop() if kind == "aconnect" else None
        made = pepcore.aconnect(**settings) if self.loop else pepcore.connect(**settings)
        self.client: Any = self.run(made)

    def run(self, made: Any) -> Any:
        return self.loop.run_until_complete(made) if self.loop else made

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.run(getattr(self.client, name)(*args, **kwargs))
