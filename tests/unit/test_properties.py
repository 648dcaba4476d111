"""Properties of every built-in type: what is malformed, and its neighbour that is not."""

import pytest

from pepcore.core.obligation import DENIED, ENFORCER, MAX_FIELDS, PAYLOAD, SERVER, builtin, check, compile
from pepcore.errors import ObligationFault
from pepcore.model import Obligation
from tests.unit.obligation_cases import faults, fields

HASH = {**fields("/a"), "style": "hash"}


def daily(start, end):
    return {"daily": {"start": start, "end": end}}


MALFORMED = [
    ("redact", {}, fields("/a"), "fields"),
    ("redact", {"feilds": ["/a"], **fields("/a")}, fields("/a"), "properties"),
    ("redact", {"fields": "/a"}, fields("/a"), "fields"),
    ("redact", fields(), fields("/a"), "fields"),
    ("redact", fields(*["/a"] * (MAX_FIELDS + 1)), fields(*["/a"] * MAX_FIELDS), "fields"),
    ("redact", fields("a"), fields("/a"), "fields[0]"),
    ("redact", fields("/a", "/~2"), fields("/a", "/~1"), "fields[1]"),
    ("redact", fields("/~"), fields("/~0"), "fields[0]"),
    ("redact", fields("/a" * 33), fields("/a" * 32), "fields[0]"),
    ("redact", fields(1), fields("/1"), "fields[0]"),
    ("drop", fields(""), fields("/"), "fields[0]"),
    ("keep", fields(""), fields("/*"), "fields[0]"),
    ("mask", fields("/a"), {**fields("/a"), "style": "fixed"}, "style"),
    ("mask", {**fields("/a"), "style": "first-4"}, {**fields("/a"), "style": "last-4"}, "style"),
    ("mask", {**fields("/a"), "style": []}, {**fields("/a"), "style": "last-4"}, "style"),
    ("mask", HASH, {**HASH, "salt": "s"}, "salt"),
    ("mask", {**HASH, "salt": ""}, {**HASH, "salt": "é"}, "salt"),
    ("mask", {**fields("/a"), "style": "fixed", "salt": "s"}, {**fields("/a"), "style": "fixed"}, "salt"),
    ("limit", {"rows": -1}, {"rows": 0}, "rows"),
    ("limit", {"rows": True}, {"rows": 1}, "rows"),
    ("limit", {"rows": 1.0}, {"rows": 1}, "rows"),
    ("set-header", {"name": "X-A"}, {"name": "X-A", "value": ""}, "value"),
    ("set-header", {"name": "X A", "value": ""}, {"name": "X-A", "value": ""}, "name"),
    ("set-header", {"name": "", "value": ""}, {"name": "a", "value": ""}, "name"),
    ("set-header", {"name": "a:", "value": ""}, {"name": "a.", "value": ""}, "name"),
    ("set-header", {"name": "a", "value": "x\r\ny: z"}, {"name": "a", "value": "x y: z"}, "value"),
    ("set-header", {"name": "a", "value": "x\0"}, {"name": "a", "value": "x0"}, "value"),
    ("set-header", {"name": "a", "value": "é"}, {"name": "a", "value": "e"}, "value"),
    ("set-header", {"name": "a", "value": " x"}, {"name": "a", "value": "x x"}, "value"),
    ("set-header", {"name": "a", "value": 1}, {"name": "a", "value": "1"}, "value"),
    ("remove-header", {"name": "a\n"}, {"name": "a"}, "name"),
    ("window", {}, {"not_before": 0}, "properties"),
    ("window", {"not_after": -1}, {"not_after": 0}, "not_after"),
    ("window", {"not_after": "2026-01-31"}, {"not_after": "2026-01-31T00:00:00Z"}, "not_after"),
    ("window", {"not_after": "2026-02-29T00:00:00Z"}, {"not_after": "2028-02-29T00:00:00Z"}, "not_after"),
    ("window", {"not_after": "2026-01-31T00:00:00"}, {"not_after": "2026-01-31T00:00:00+01:00"}, "not_after"),
    ("window", {"not_before": 5, "not_after": 5}, {"not_before": 5, "not_after": 6}, "not_after"),
    ("window", {"daily": {"start": "09:00"}}, daily("09:00", "17:00"), "daily"),
    ("window", daily("9:00", "17:00"), daily("22:00", "06:00"), "daily.start"),
    ("window", daily("00:00", "24:00"), daily("00:00", "23:59"), "daily.end"),
    ("window", daily("09:00", "09:00"), daily("09:00", "09:01"), "daily.end"),
    ("rate", {"count": 0, "per": "1m"}, {"count": 1, "per": "1m"}, "count"),
    ("rate", {"count": 1}, {"count": 1, "per_ms": 1}, "per"),
    ("rate", {"count": 1, "per": "1m", "per_ms": 1}, {"count": 1, "per": "366d"}, "per"),
    ("rate", {"count": 1, "per": "1 m"}, {"count": 1, "per": "90s"}, "per"),
    ("rate", {"count": 1, "per": 60}, {"count": 1, "per": "60ms"}, "per"),
    ("rate", {"count": 1, "per_ms": 0}, {"count": 1_000_000, "per_ms": 1}, "per_ms"),
    ("notify", {"to": "a"}, {"to": "a", "body": "b"}, "body"),
    ("notify", {"to": "a", "body": "b", "topic": ""}, {"to": "a", "body": "b", "topic": "c"}, "topic"),
    ("approve", {"acr_value": 1}, {"acr_value": "urn:mfa"}, "acr_value"),
    ("approve", {"amr_values": []}, {"amr_values": ["otp"]}, "amr_values"),
    ("approve", {"amr_values": ["otp", ""]}, {}, "amr_values[1]"),
    ("end-session", {}, {"subject": "User::ada"}, "subject"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "bad", "good", "field"), MALFORMED)
def test_malformed_properties_are_refused_with_the_name_of_the_field(kind, bad, good, field):
    with pytest.raises(ObligationFault) as caught:
        check(kind, bad)
    assert caught.value.field == field
    check(kind, good)
    with pytest.raises(ObligationFault) as caught:
        compile([Obligation("my-id", kind, bad)])
    assert caught.value.field == f"obligations.my-id.{field}"
    compile([Obligation("my-id", kind, good)])


def test_builtin_knows_its_types_and_others_are_not_looked_into():
    assert all(map(builtin, PAYLOAD | ENFORCER | SERVER | DENIED))
    assert not builtin("watermark")
    check("watermark", {"anything": object()})
    faults("properties", check, "watermark", None)
