"""The log of a daemon: what it says of a defect."""

from __future__ import annotations

import logging

import pytest

from pepcore.server import logs


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnicodeEncodeError("utf-8", "hunter2\ud800", 7, 8, "surrogates not allowed"), "UnicodeEncodeError"),
        (KeyError("hunter2"), "KeyError"),
        (OSError(28, "No space left on device", "/hunter2"), "OSError: No space left on device"),
        (None, "NoneType"),
    ],
)
def test_of_a_defect_it_says_the_kind_and_not_what_that_may_quote(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, said: str
) -> None:
    monkeypatch.setattr(logging.getLogger("pepcore"), "propagate", True)
    monkeypatch.setattr(logs, "_suppressed", {})
    logs.unexpected("a connection is closed", error)
    (record,) = caplog.records
    assert record.fields["error"] == said  # type: ignore[attr-defined]
    assert "hunter2" not in repr(record.fields)  # type: ignore[attr-defined]
