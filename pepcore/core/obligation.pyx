"""Obligations of an answer: who discharges them, whether all of them can stand, and the program they make.

Promises: the result depends on the set of obligations only, never on their order (AuthZEN obligations profile):
they are sorted by kind and id first, and the program applies all of them at once. Two of one id are one if they are
equal. Two that cannot both hold are a clash, which is a fault: one id with two meanings, one header with two values or
set and removed, one place with two masks. Everything else adds up: drop before redact before mask, the smallest
limit, only what every keep keeps.
Never: permits. `unhandled` finds the reason why a permit cannot stand; "" only says that these obligations do not
forbid it. `understood` is what still runs then; it always compiles.

INVARIANT: unhandled(o, h) == "" if and only if understood(o, h) leaves nothing out.
"""

from msgspec.msgpack import Encoder

from ..errors import ObligationFault
from .paths cimport KEEP, MASK, DROP, REDACT, Effect, Rule, State, build, meet, segments, shown, well_formed
from .program cimport Program, new_program
from .properties cimport folded
from .payload import Headers, Rows
from .properties import MAX_FIELDS, builtin, check

MAX_OBLIGATIONS = 64
cdef tuple ORDER = ("keep", "drop", "redact", "mask", "limit", "remove-header", "set-header",
                    "window", "rate", "notify", "approve", "end-session")
PAYLOAD = frozenset(ORDER[:7])                      # this unit, where the point handles them
ENFORCER = frozenset(("window", "rate"))            # pepcore.discharge
SERVER = frozenset(("notify",))                     # pepcore.server
DENIED = frozenset(("approve", "end-session"))      # nobody yet: they always deny
cdef frozenset PATHS = frozenset(("keep", "drop", "redact", "mask"))
cdef dict EFFECTS = {"keep": KEEP, "drop": DROP, "redact": REDACT, "mask": MASK}
cdef object ENCODE = Encoder(order="sorted").encode


# ---- one obligation --------------------------------------------------------------------------------------------

cdef object malformed(object obligation):
    """The fault of an obligation by itself, or None. Never of its order or its neighbours."""
    if not (is_name(obligation.id) and is_name(obligation.type)):
        return ObligationFault("obligations", "have one whose id or type is not non-empty text")
    try:
        check(obligation.type, obligation.properties)
    except ObligationFault as error:
        return ObligationFault(f"obligations.{shown(obligation.id)}.{error.field}", error.reason)
    if body(obligation) is None:
        return ObligationFault(f"obligations.{shown(obligation.id)}.properties", "hold what is no JSON value")
    return None


cdef bint is_name(object text):
    return type(text) is str and text != "" and well_formed(text)


cdef str undischarged(object obligation, object handles):
    """Why nobody discharges a well-formed obligation, or ""."""
    if obligation.type in DENIED:
        return f"`{shown(obligation.type)}` cannot be discharged yet: it always denies"
    if obligation.type not in ENFORCER and obligation.type not in SERVER and obligation.type not in handles:
        return f"`{shown(obligation.type)}` is not among the types that this point handles"
    return ""


cdef bytes body(object obligation):
    """The properties as bytes, equal if the properties are; None if they cannot be on a wire."""
    try:
        return ENCODE(obligation.properties)
    except Exception:       # whatever a caller's own objects raise
        return None


cdef list in_order(object obligations):
    """Sorted, and those said twice said once."""
    cdef list out = []
    cdef tuple key, last = ()
    keyed = []
    for n, each in enumerate(obligations):
        rank = ORDER.index(each.type) if each.type in ORDER else len(ORDER)
        keyed.append(((rank, each.type, each.id, body(each) or b""), n, each))
    for key, _, each in sorted(keyed):
        if key != last:
            out.append(each)
        last = key
    return out


# ---- two obligations -------------------------------------------------------------------------------------------

cdef str clash(object one, object other):
    """Why two well-formed obligations cannot both hold, or ""."""
    cdef dict a = one.properties, b = other.properties
    if one.id == other.id:
        return "is the id of two different obligations"
    if other.type == "set-header" and folded(a.get("name", "")) == folded(b["name"]):
        if one.type == "remove-header":
            return f"sets the header `{shown(folded(b['name']))}`, which another obligation removes"
        if one.type == "set-header" and a["value"] != b["value"]:
            return f"sets the header `{shown(folded(b['name']))}`, which another obligation sets to another value"
    if one.type == other.type == "mask" and (a["style"], a.get("salt")) != (b["style"], b.get("salt")):
        for path in a["fields"]:
            for against in b["fields"]:
                if meet(segments(path, ""), segments(against, "")):
                    return f"masks `{shown(against)}`, which another obligation masks in another way"
    return ""


cdef list clashes(list ordered):
    """Every (obligation, obligation, fault) that cannot stand together."""
    cdef list out = []
    cdef str reason
    for i, one in enumerate(ordered):
        for other in ordered[i + 1:]:
            reason = clash(one, other)
            if reason != "":
                out.append((one, other, ObligationFault(f"obligations.{shown(other.id)}", reason)))
    return out


cdef int fields_in(list obligations):
    return sum([len(each.properties["fields"]) for each in obligations if each.type in PATHS])


# ---- the set ---------------------------------------------------------------------------------------------------

cdef list sound(object obligations, object handles):
    """The obligations in order, all of them able to stand together. `handles` None: no matter who discharges them."""
    cdef list ordered
    if len(obligations) > MAX_OBLIGATIONS:
        raise ObligationFault("obligations", f"are {len(obligations)}: at most {MAX_OBLIGATIONS} in one answer")
    for obligation in obligations:
        if not (is_name(obligation.id) and is_name(obligation.type)):
            raise malformed(obligation)
    ordered = in_order(obligations)
    for obligation in ordered:
        error = malformed(obligation)
        if error is not None:
            raise error
        reason = undischarged(obligation, handles) if handles is not None else ""
        if reason != "":
            raise ObligationFault(f"obligations.{shown(obligation.id)}", reason)
    if fields_in(ordered) > MAX_FIELDS:
        raise ObligationFault("obligations", f"name {fields_in(ordered)} fields: at most {MAX_FIELDS} in one answer")
    for _, _, error in clashes(ordered):
        raise error
    return ordered


cdef Program assembled(list ordered):
    """The program of obligations that are sound."""
    cdef list rules = []
    cdef dict given = {}
    cdef set taken = set()
    cdef int groups = 0
    cdef Py_ssize_t rows = -1
    for obligation in ordered:
        properties = obligation.properties
        if obligation.type in PATHS:
            for path in properties["fields"]:
                rules.append(new_rule(EFFECTS[obligation.type], groups, path, properties))
            groups += obligation.type == "keep"
        elif obligation.type == "limit":
            rows = properties["rows"] if rows < 0 else min(rows, properties["rows"])
        elif obligation.type == "remove-header":
            taken.add(folded(properties["name"]))
        elif obligation.type == "set-header":
            name = folded(properties["name"])
            taken.add(name)
            header = (properties["name"], properties["value"])
            given[name] = min(given.get(name, header), header)      # of two spellings, always the same one
    return new_program(
        build(rules, groups), rows, frozenset(taken), tuple([given[name] for name in sorted(given)])
    )


cdef Rule new_rule(Effect effect, int group, str path, dict properties):
    cdef Rule rule = Rule.__new__(Rule)
    rule.effect, rule.group, rule.path, rule.segments = effect, group, path, segments(path, "fields")
    rule.style = properties.get("style")
    rule.salt = properties["salt"].encode() if "salt" in properties else None
    return rule


def compile(obligations):
    """The program of the payload obligations among these. Raises ObligationFault if any of them cannot stand."""
    return assembled(sound(obligations, None))


def unhandled(obligations, handles):
    """Why a permit with these obligations cannot stand at a point that handles the types `handles`; "" if it can."""
    try:
        assembled(sound(obligations, handles))
    except ObligationFault as error:
        return str(error)
    return ""


def understood(obligations, handles):
    """The obligations that still run when the answer is a deny, or becomes one because of the others.

    Left out are those that are malformed or that nobody here discharges, and of those that clash, each. Where bounds
    are exceeded, which ones are too many is nobody's to choose: none of over MAX_OBLIGATIONS, no paths.
    """
    if len(obligations) > MAX_OBLIGATIONS:
        return ()
    cdef list ordered = in_order([
        each for each in obligations if malformed(each) is None and undischarged(each, handles) == ""
    ])
    if fields_in(ordered) > MAX_FIELDS:
        ordered = [each for each in ordered if each.type not in PATHS]
    cdef list out = []
    for one, other, _ in clashes(ordered):
        out += [id(one), id(other)]
    ordered = [each for each in ordered if id(each) not in out]
    try:
        assembled(ordered)
    except ObligationFault:
        ordered = [each for each in ordered if each.type not in PATHS]
    return tuple(ordered)
