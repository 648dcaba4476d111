"""Obligations in plain Python: the reference that pepcore/core must equal, result and fault.

Every place of a payload asks all rules anew what they say about it: slow, and without anything that could get
out of step.
"""

import hmac
import json
import math
import re
from collections import namedtuple

import msgspec

from pepcore.core.payload import Headers, Rows
from pepcore.errors import ObligationFault
from tests.model.properties import KINDS, check, is_text, is_utf8

PATHS = ("keep", "drop", "redact", "mask")
POSITION = re.compile("0|[1-9][0-9]*")


# ---- the set ----


def fold(name):
    return re.sub("[_.]", "-", name).lower()


def segments(path):
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def in_order(obligations):
    """Sorted, and those said twice said once."""
    rank = {kind: n for n, kind in enumerate(KINDS)}
    keyed = {
        (rank.get(o.type, len(rank)), o.type, o.id, msgspec.msgpack.encode(o.properties, order="sorted")): o
        for o in obligations
    }
    return [keyed[key] for key in sorted(keyed)]


def clash(a, b):
    """Why two obligations, a before b in order, cannot both hold."""
    if a.id == b.id:
        return "is the id of two different obligations"
    if b.type == "set-header" and a.type in ("set-header", "remove-header"):
        name = fold(b.properties["name"])
        if fold(a.properties["name"]) == name:
            if a.type == "remove-header":
                return f"sets the header `{name}`, which another obligation removes"
            if a.properties["value"] != b.properties["value"]:
                return f"sets the header `{name}`, which another obligation sets to another value"
    if a.type == b.type == "mask" and way(a) != way(b):
        for one in a.properties["fields"]:
            for other in b.properties["fields"]:
                if may_meet(segments(one), segments(other)):
                    return f"masks `{shown(other)}`, which another obligation masks in another way"
    return ""


def shown(path):
    return ascii(path)[1:-1]


def way(mask):
    return mask.properties["style"], mask.properties.get("salt")


def may_meet(one, other):
    return len(one) == len(other) and all(x == y or "*" in (x, y) for x, y in zip(one, other, strict=True))


def covers(pattern, place):
    """Like `may_meet`, but a place has no wildcards: a member can be called `*`."""
    return len(pattern) == len(place) and all(x in ("*", y) for x, y in zip(pattern, place, strict=True))


def clashes(ordered):
    pairs = [(a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :]]
    return [(a, b, clash(a, b)) for a, b in pairs if clash(a, b)]


def field_count(obligations):
    return sum(len(o.properties["fields"]) for o in obligations if o.type in PATHS)


def whose(o, handles):
    """Why nobody discharges it."""
    if o.type in ("approve", "end-session"):
        return f"`{o.type}` cannot be discharged yet: it always denies"
    if o.type in ("window", "rate", "notify") or o.type in handles:
        return ""
    return f"`{o.type}` is not among the types that this point handles"


def compile(obligations, handles=None):
    """All obligations in order, if all of them can stand."""
    if len(obligations) > 64:
        raise ObligationFault("obligations", f"are {len(obligations)}: at most 64 in one answer")
    if not all(is_text(o.id) and is_text(o.type) for o in obligations):
        raise ObligationFault("obligations", "have one whose id or type is not non-empty text")
    ordered = in_order(obligations)
    for o in ordered:
        if check(o.type, o.properties):
            raise ObligationFault(f"obligations.{o.id}.{check(o.type, o.properties)}", "...")
        if handles is not None and whose(o, handles):
            raise ObligationFault(f"obligations.{o.id}", whose(o, handles))
    if field_count(ordered) > 256:
        raise ObligationFault("obligations", f"name {field_count(ordered)} fields: at most 256 in one answer")
    for _, b, why in clashes(ordered):
        raise ObligationFault(f"obligations.{b.id}", why)
    return ordered


def understood(obligations, handles):
    """What still runs when the answer is a deny."""
    if len(obligations) > 64:
        return []
    good = [o for o in obligations if is_text(o.id) and is_text(o.type) and not check(o.type, o.properties)]
    ordered = in_order([o for o in good if not whose(o, handles)])
    if field_count(ordered) > 256:
        ordered = [o for o in ordered if o.type not in PATHS]
    return [o for o in ordered if not any(o is a or o is b for a, b, _ in clashes(ordered))]


# ---- the payload ----

Rule = namedtuple("Rule", "effect group path segments properties")


def fault(reason):
    return ObligationFault("payload", reason)


class Run:
    """One run over one payload. A place is the list of the segments that lead to it."""

    def __init__(self, obligations):
        self.of = {kind: [o.properties for o in compile(obligations) if o.type == kind] for kind in KINDS}
        self.rules = [
            Rule(kind, group, path, segments(path), properties)
            for kind in PATHS
            for group, properties in enumerate(self.of[kind])
            for path in properties["fields"]
        ]

    def hits(self, rule, place):
        return covers(rule.segments, place)

    def on(self, rule, place):
        """The rule has hit the place or one above it."""
        return any(self.hits(rule, place[:n]) for n in range(len(place) + 1))

    def leads(self, rule, place):
        """The rule goes on below the place."""
        return len(rule.segments) > len(place) and covers(rule.segments[: len(place)], place)

    def effects(self, place):
        return [rule.effect for rule in self.rules if self.hits(rule, place)]

    def acts(self, place):
        return set(self.effects(place)) - {"keep"}

    def kept(self, group, place):
        return any(rule.effect == "keep" and rule.group == group and self.on(rule, place) for rule in self.rules)

    def gone(self, place):
        return "drop" in self.effects(place) or any(
            not self.kept(group, place)
            and not any(r.effect == "keep" and r.group == group and self.leads(r, place) for r in self.rules)
            for group in range(len(self.of["keep"]))
        )

    def leading(self, place):
        return [
            rule
            for rule in self.rules
            if self.leads(rule, place) and not (rule.effect == "keep" and self.kept(rule.group, place))
        ]

    def walk(self, value, place, depth, limit=None):
        kind, leading = type(value), self.leading(place)
        if "redact" in self.effects(place) or value is None:
            return None
        if leading and kind not in (dict, list):
            path = min(rule.path for rule in leading)
            what = f"has a `{kind.__name__}` on the way of the path `{shown(path)}`"
            raise fault(f"{what}: only lists and objects can be entered")
        masks = [rule for rule in self.rules if rule.effect == "mask" and self.hits(rule, place)]
        if masks:
            return self.hidden(value, min(masks, key=lambda rule: rule.path))
        if kind in (dict, list):
            if depth == 64:
                raise fault("is nested more than 64 deep")
            return self.members(value, place, depth) if kind is dict else self.items(value, place, depth, limit)
        if kind is str and not is_utf8(value):
            raise fault("holds text with a lone surrogate, which no JSON text can hold")
        if kind is int and not -(2**63) <= value < 2**64:
            raise fault("holds a whole number outside -2^63 to 2^64-1: send it as text")
        if kind is float and not math.isfinite(value):
            raise fault("holds a number that is not finite")
        if kind not in (str, int, float, bool):
            raise fault(f"holds a `{kind.__name__}`, which is no JSON value: convert it first")
        return value

    def members(self, value, place, depth):
        out = {}
        for name, member in value.items():
            if type(name) is not str or not is_utf8(name):
                raise fault("has an object with a name that is not text")
            if not self.gone([*place, name]):
                out[name] = self.walk(member, [*place, name], depth + 1)
        return out

    def items(self, value, place, depth, limit):
        names = [
            r.path for r in self.leading(place) if not POSITION.fullmatch(r.segments[len(place)].replace("*", "0"))
        ]
        if names:
            what = f"has a list on the way of the path `{shown(min(names))}`"
            raise fault(f"{what}, which names a member: use a position or `*`")
        places = [(item, [*place, str(i)]) for i, item in enumerate(value[:limit])]
        return [self.walk(item, where, depth + 1) for item, where in places if not self.gone(where)]

    def hidden(self, value, rule):
        if not (type(value) is int and -(2**63) <= value < 2**64) and not (type(value) is str and is_utf8(value)):
            raise fault(f"has a `{type(value).__name__}` at `{shown(rule.path)}` that has no mask: redact or drop it")
        text = str(value)
        if rule.properties["style"] == "hash":
            return "sha256:" + hmac.new(rule.properties["salt"].encode(), text.encode(), "sha256").hexdigest()[:32]
        return "****" + (text[-4:] if rule.properties["style"] == "last-4" and len(text) >= 8 else "")

    def cell(self, value, place):
        if isinstance(value, (str, int, float, list, dict)) or self.leading(place) or self.acts(place):
            return self.walk(value, place, 0)
        return value

    def table(self, rows, limit):
        if self.acts([]):
            raise fault("is a table, which the empty path cannot name: name its columns")
        out = []
        for row in rows.rows[:limit]:
            if type(row) not in (list, tuple) or len(row) != len(rows.columns):
                raise fault("is a table with a row that is not a list or tuple with one cell per column")
            cells = zip(rows.columns, row, strict=True)
            out.append(tuple(self.cell(value, [name]) for name, value in cells if not self.gone([name])))
        return Rows(tuple(name for name in rows.columns if not self.gone([name])), out)

    def fields(self, headers):
        given = {}
        for p in self.of["set-header"]:
            name = fold(p["name"])
            given[name] = min(given.get(name, (p["name"], p["value"])), (p["name"], p["value"]))
        taken = {*given, *(fold(p["name"]) for p in self.of["remove-header"])}
        kept = [(name, value) for name, value in headers.items if fold(name) not in taken]
        return Headers((*kept, *(given[name] for name in sorted(given))))

    def bare(self, payload):
        """A header list that is not wrapped, where headers are to be set or removed."""
        return (
            bool(self.of["set-header"] or self.of["remove-header"])
            and isinstance(payload, (list, tuple))
            and len(payload) > 0
            and all(isinstance(p, (list, tuple)) and len(p) == 2 and isinstance(p[0], (str, bytes)) for p in payload)
        )

    def data(self, payload):
        limit = min((p["rows"] for p in self.of["limit"]), default=None)
        if type(payload) is Rows:
            return self.table(payload, limit)
        if limit is not None and type(payload) is not list:
            raise fault("is neither a list nor rows, so that a limit has nothing to count")
        return self.walk(payload, [], 0, limit)


def run(obligations, payload):
    it = Run(obligations)
    if type(payload) is Headers:
        return it.fields(payload) if it.of["set-header"] or it.of["remove-header"] else payload
    if it.bare(payload):
        raise fault("is a plain list of pairs, which header obligations pass over: wrap it in `pepcore.Headers`")
    return it.data(payload) if it.rules or it.of["limit"] else payload


def run_json(obligations, data):
    def members(pairs):
        if len(dict(pairs)) != len(pairs):
            raise fault("has an object with one name twice: which of the two is meant is unclear")
        return dict(pairs)

    return msgspec.json.encode(Run(obligations).data(json.loads(data, object_pairs_hook=members)), order="sorted")
