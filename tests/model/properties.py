"""The properties of the built-in obligation types in plain Python: what the core must accept.

`check` gives the name of the field that is wrong, or "": the words of the fault are not modelled.
"""

import re
from datetime import datetime

KINDS = {  # in the order in which faults are told: required names, optional names
    "keep": ("fields", ""), "drop": ("fields", ""), "redact": ("fields", ""),
    "mask": ("fields style", "salt"),
    "limit": ("rows", ""), "remove-header": ("name", ""), "set-header": ("name value", ""),
    "window": ("", "not_before not_after daily"), "rate": ("count", "per per_ms"),
    "notify": ("to body", "topic"), "approve": ("", "acr_value amr_values"), "end-session": ("subject", ""),
}  # fmt: skip
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:\d\d)".replace(r"\d", "[0-9]"))
DAY = 24 * 60 * 60 * 1000
UNITS = {"ms": 1, "s": 1000, "m": 60 * 1000, "h": 60 * 60 * 1000, "d": DAY}


def is_utf8(text):
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def is_text(value):
    return type(value) is str and value != "" and is_utf8(value)


def is_whole(value, least, most):
    return type(value) is int and least <= value <= most


def matches(pattern, value):
    return type(value) is str and is_utf8(value) and re.fullmatch(pattern, value, re.DOTALL)


def instant(value):
    if matches(INSTANT.pattern, value):
        try:
            return instant(round(datetime.fromisoformat(value).timestamp() * 1000))
        except ValueError:
            return None
    return value if is_whole(value, 0, 2**53 - 1) else None


def span(value):
    found = matches("([0-9]{1,12})(ms|s|m|h|d)", value)
    return int(found[1]) * UNITS[found[2]] if found else None


def check(kind, p):
    """The first field that is wrong, or ""."""
    if type(p) is not dict:
        return "properties"
    if kind not in KINDS:
        return ""
    required, optional = (names.split() for names in KINDS[kind])
    for name in required:
        if name not in p:
            return name
    if set(p) - {*required, *optional} or (kind == "window" and not p):
        return "properties"
    return next((name for name, good in tests(kind, p) if not good), "")


def tests(kind, p):
    """What has to be true, with the field that is wrong if it is not."""
    if "fields" in p:
        yield "fields", type(p["fields"]) is list and 1 <= len(p["fields"]) <= 256
        for i, path in enumerate(p["fields"]):
            yield f"fields[{i}]", matches("(/([^/~]|~[01])*){0,32}", path)
            yield f"fields[{i}]", path != "" or kind in ("redact", "mask")
    if kind == "mask":
        yield "style", p["style"] in ("last-4", "hash", "fixed")
        yield "salt", is_text(p.get("salt")) if p["style"] == "hash" else "salt" not in p
    if kind == "limit":
        yield "rows", is_whole(p["rows"], 0, 2**53 - 1)
    if kind in ("set-header", "remove-header"):
        yield "name", matches(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", p["name"])
    if kind == "set-header":
        yield "value", matches("([!-~]([ -~]*[!-~])?)?", p["value"])
    if kind == "window":
        edges = [name for name in ("not_before", "not_after") if name in p]
        for name in edges:
            yield name, instant(p[name]) is not None
        yield "not_after", len(edges) < 2 or instant(p["not_before"]) < instant(p["not_after"])
        if "daily" in p:
            yield "daily", type(p["daily"]) is dict and set(p["daily"]) == {"start", "end"}
            for name in ("start", "end"):
                yield f"daily.{name}", matches("([01][0-9]|2[0-3]):[0-5][0-9]", p["daily"][name])
            yield "daily.end", p["daily"]["start"] != p["daily"]["end"]
    if kind == "rate":
        yield "count", is_whole(p["count"], 1, 1_000_000)
        yield "per", ("per" in p) != ("per_ms" in p)
        yield "per", "per" not in p or is_whole(span(p["per"]), 1, 366 * DAY)
        yield "per_ms", "per_ms" not in p or is_whole(p["per_ms"], 1, 366 * DAY)
    for name in ("to", "body", "topic", "subject", "acr_value"):
        yield name, name not in p or is_text(p[name])
    if "amr_values" in p:
        yield "amr_values", type(p["amr_values"]) is list and p["amr_values"] != []
        for i, value in enumerate(p["amr_values"]):
            yield f"amr_values[{i}]", is_text(value)
