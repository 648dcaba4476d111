"""What a client keeps of the daemon's answers, under the daemon's page.

Promises: the table is private to the process and bounded; it is empty whenever the page is another one, and after a
fork; an answer stands in it only as the page allows (`core/local.pyx`).
Never: keeps anything before a page is mapped; reaches back to a page whose daemon is gone.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Callable
from typing import Any

from pepcore.core.local import Local
from pepcore.core.page import Page
from pepcore.core.verdict import Verdict

from .mapped import Shared

SLOTS = 8192


def nobody() -> Page:
    """A page that no daemon has: no answer carries its boot, so none is kept."""
    return Page(secrets.randbits(64) | 1)


def table(miss: Callable[..., Verdict] | None) -> Local:
    """An empty table for answers, without a page yet. `miss` decides what is not in it."""
    made = Local(nobody(), miss or _no_miss, slots=SLOTS)
    _all.add(made)
    return made


def under(kept: Local, shared: Shared | None) -> None:
    """A daemon has shared its page: what was kept under another one is dropped."""
    if shared is not None:
        kept.renew(*shared)


def _no_miss(*question: Any) -> Verdict:
    raise TypeError("this table is only looked into")


_all: weakref.WeakSet[Local] = weakref.WeakSet()


def _forked() -> None:
    for kept in list(_all):
        kept.renew(nobody())


os.register_at_fork(after_in_child=_forked)
