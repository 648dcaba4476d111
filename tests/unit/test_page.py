"""The page: a revision that only grows, and ends whatever was stamped before."""

import pytest

from pepcore.core.cache import Cache
from pepcore.core.page import Page


def test_the_revision_only_grows():
    page = Page(7)
    assert [page.boot, page.revision] == [7, 0]
    assert [page.bump() for _ in range(3)] == [1, 2, 3]
    for name in ("boot", "revision"):
        with pytest.raises(AttributeError):
            setattr(page, name, 0)
    assert page.revision == 3


def test_a_boot_of_0_is_refused():
    with pytest.raises(ValueError, match="closed"):
        Page(0)
    assert Page(2**64 - 1).boot == 2**64 - 1


def test_what_was_stamped_before_a_bump_is_not_served_after_it():
    page, cache = Page(1), Cache(slots=8, slab=4096, seed=1)
    rest = {"permit": True, "id": 1, "expires": 100, "now": 0}
    assert cache.put(1, 1, b"k", b"", revision=page.revision, current=page.revision, **rest)
    assert cache.get(1, b"k", 0, page.revision)
    old = page.revision
    page.bump()
    assert cache.get(1, b"k", 0, page.revision) is None
    assert not cache.put(1, 1, b"k", b"", revision=old, current=page.revision, **rest)
