"""The properties of every built-in obligation type: which there are, what they may hold.

Promises: `check` accepts exactly the properties that the floors above can discharge, so that an obligation refused
when policies load is also refused in an answer, with the same words; a name that is not known is refused, since
a misspelt `feilds` would else redact nothing.
Never: looks at a payload or a clock, shows a salt in an error.

INVARIANT: properties that passed `check` can only fail on the payload or the clock they meet.
"""

from datetime import datetime, timezone

from ..errors import ObligationFault
from .paths cimport segments, shown, well_formed

MAX_FIELDS = 256
MAX_COUNT = 1_000_000
cdef object MAX_MS = 2**53 - 1                  # the largest whole number that every JSON reader keeps
cdef object DAY_MS = 86_400_000                 # an object: products of it do not fit a C int
cdef object MAX_SPAN_MS = 366 * DAY_MS
cdef dict UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}
cdef str TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
cdef dict DIGIT = {ord(digit): "9" for digit in "0123456789"}
cdef object EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def builtin(type):
    """True for the types whose properties `check` knows."""
    return type in CHECKS


def check(type, properties):
    """Raise ObligationFault if a built-in type has malformed properties. Other types are not looked into."""
    if not is_dict(properties):
        raise ObligationFault("properties", "must be an object")
    if type in CHECKS:
        CHECKS[type](properties)


cdef bint is_dict(object value):
    return type(value) is dict


cdef bint is_whole(object value, object least, object most):
    return type(value) is int and least <= value <= most


cdef int only(dict properties, tuple required, tuple optional=()) except -1:
    for name in required:
        if name not in properties:
            raise ObligationFault(name, "is missing")
    unknown = [shown(name) for name in properties if type(name) is not str or name not in required + optional]
    if unknown:
        known = "`, `".join(required + optional)
        raise ObligationFault("properties", f"have an unknown name `{min(unknown)}`: known are `{known}`")
    return 0


cdef int text(dict properties, str name) except -1:
    value = properties[name]
    if type(value) is not str or value == "" or not well_formed(value):
        raise ObligationFault(name, "must be non-empty text")
    return 0


# ---- data ------------------------------------------------------------------------------------------------------

cdef int fields(dict properties, bint whole) except -1:
    """`whole`: the empty path, which is the payload itself, may be named."""
    value = properties["fields"]
    if type(value) is not list or not 1 <= len(value) <= MAX_FIELDS:
        raise ObligationFault("fields", f"must be a list of 1 to {MAX_FIELDS} JSON Pointers")
    for i, path in enumerate(value):
        if segments(path, f"fields[{i}]") == () and not whole:
            raise ObligationFault(f"fields[{i}]", "is the whole payload: name what is in it, or deny")
    return 0


def _redact(properties):
    only(properties, ("fields",))
    fields(properties, True)


def _drop(properties):
    only(properties, ("fields",))
    fields(properties, False)


def _mask(properties):
    only(properties, ("fields", "style"), ("salt",))
    fields(properties, True)
    style = properties["style"]
    if type(style) is not str or style not in ("last-4", "hash", "fixed"):
        raise ObligationFault("style", f"is `{shown(style)}`: use `last-4`, `hash` or `fixed`")
    if style == "hash":
        if "salt" not in properties:
            raise ObligationFault("salt", "is missing: a hash without one can be looked up")
        text(properties, "salt")
    elif "salt" in properties:
        raise ObligationFault("salt", f"has no use with style `{style}`: leave it out")


def _limit(properties):
    only(properties, ("rows",))
    if not is_whole(properties["rows"], 0, MAX_MS):
        raise ObligationFault("rows", "must be a whole number of at least 0")


# ---- headers ---------------------------------------------------------------------------------------------------

cdef str folded(str name):
    """One form for all names that some server takes for the same header: `X-User`, `x_user`, `X.User`."""
    return name.lower().replace("_", "-").replace(".", "-")


cdef bint is_token(object text):
    """RFC 9110, section 5.6.2."""
    cdef Py_UCS4 character
    if type(text) is not str or text == "":
        return False
    for character in <str> text:
        if character not in TOKEN:
            return False
    return True


def _remove_header(properties):
    only(properties, ("name",))
    if not is_token(properties["name"]):
        raise ObligationFault("name", "must be a header name (RFC 9110): letters, digits and !#$%&'*+-.^_`|~")


def _set_header(properties):
    cdef Py_UCS4 character
    only(properties, ("name", "value"))
    _remove_header({"name": properties["name"]})
    value = properties["value"]
    if type(value) is not str:
        raise ObligationFault("value", "must be text")
    for character in <str> value:
        if not 0x20 <= character <= 0x7E:       # beyond ASCII, points would disagree about the bytes
            raise ObligationFault("value", "must be printable ASCII without control characters or line ends")
    if value != value.strip(" "):
        raise ObligationFault("value", "must not begin or end with a space: receivers strip it")


# ---- clock -----------------------------------------------------------------------------------------------------

def instant_ms(value, field):
    """Unix milliseconds of Unix milliseconds or of an RFC 3339 text."""
    if type(value) is str:
        shape = value.translate(DIGIT)
        zone = shape[19:]
        if zone[:2] == ".9" and zone[:5] != ".9999":
            zone = zone[1:].lstrip("9")
        if shape[:19] == "9999-99-99T99:99:99" and zone in ("Z", "+99:99", "-99:99") and value[11:13] < "24":
            try:
                past = datetime.fromisoformat(value) - EPOCH
                value = past.days * DAY_MS + past.seconds * 1000 + past.microseconds // 1000
            except (ValueError, OverflowError):
                pass
    if not is_whole(value, 0, MAX_MS):
        raise ObligationFault(
            field, "must be Unix milliseconds or RFC 3339 text such as `2026-01-31T09:00:00Z`, at most 3 decimals"
        )
    return value


def minute_of_day(value, field):
    """Minutes since midnight of `HH:MM`."""
    if type(value) is not str or value.translate(DIGIT) != "99:99" or value[:2] > "23" or value[3:] > "59":
        raise ObligationFault(field, "must be `HH:MM` from `00:00` to `23:59`, in UTC")
    return int(value[:2]) * 60 + int(value[3:])


def span_ms(value, field):
    """Milliseconds of a text such as `30s`: a whole number and ms, s, m, h or d; at most 366 days."""
    cdef str digits, unit
    span = None
    if type(value) is str:
        digits = value.rstrip("smhd")
        unit = value[len(digits):]
        if 1 <= len(digits) <= 12 and digits.translate(DIGIT) == "9" * len(digits) and unit in UNITS:
            span = int(digits) * UNITS[unit]
    if not is_whole(span, 1, MAX_SPAN_MS):
        raise ObligationFault(field, "must be a span from `1ms` to `366d`: a whole number and ms, s, m, h or d")
    return span


def _window(properties):
    only(properties, (), ("not_before", "not_after", "daily"))
    if not properties:
        raise ObligationFault("properties", "are empty: give `not_before`, `not_after` or `daily`")
    edges = [instant_ms(properties[name], name) for name in ("not_before", "not_after") if name in properties]
    if len(edges) == 2 and edges[0] >= edges[1]:
        raise ObligationFault("not_after", "must be later than `not_before`: this window never opens")
    if "daily" in properties:
        daily = properties["daily"]
        if not is_dict(daily) or set(daily) != {"start", "end"}:
            raise ObligationFault("daily", "must be an object with `start` and `end` and nothing else")
        if minute_of_day(daily["start"], "daily.start") == minute_of_day(daily["end"], "daily.end"):
            raise ObligationFault("daily.end", "must differ from `start`: is it all day, or never?")


def _rate(properties):
    only(properties, ("count",), ("per", "per_ms"))
    if not is_whole(properties["count"], 1, MAX_COUNT):
        raise ObligationFault("count", f"must be a whole number from 1 to {MAX_COUNT}")
    if ("per" in properties) == ("per_ms" in properties):
        raise ObligationFault("per", "must be given, or `per_ms`, and not both")
    if "per" in properties:
        span_ms(properties["per"], "per")
    elif not is_whole(properties["per_ms"], 1, MAX_SPAN_MS):
        raise ObligationFault("per_ms", f"must be a whole number from 1 to {MAX_SPAN_MS}")


# ---- acts ------------------------------------------------------------------------------------------------------

def _notify(properties):
    only(properties, ("to", "body"), ("topic",))
    for name in ("to", "body", "topic"):
        if name in properties:
            text(properties, name)


def _approve(properties):
    only(properties, (), ("acr_value", "amr_values"))
    if "acr_value" in properties:
        text(properties, "acr_value")
    if "amr_values" in properties:
        values = properties["amr_values"]
        if type(values) is not list or not values:
            raise ObligationFault("amr_values", "must be a list of non-empty texts")
        for i, value in enumerate(values):
            text({f"amr_values[{i}]": value}, f"amr_values[{i}]")


def _end_session(properties):
    only(properties, ("subject",))
    text(properties, "subject")


cdef dict CHECKS = {
    "redact": _redact, "mask": _mask, "drop": _drop, "keep": _drop, "limit": _limit,
    "set-header": _set_header, "remove-header": _remove_header,
    "window": _window, "rate": _rate,
    "notify": _notify, "approve": _approve, "end-session": _end_session,
}
