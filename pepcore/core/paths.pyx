"""Paths into a payload, and the states that a walk over the payload goes through.

A path is a JSON Pointer (RFC 6901) in which a whole segment `*` stands for every member or item. All paths of an
answer become one tree of states (subset construction), so that a payload is walked once, every path is held against
the positions of the payload as it came, and no rule sees what another one did: that is why their order cannot matter.
On one place drop is stronger than redact, redact than mask; a place stays only if every `keep` keeps it.

Promises: work at compile bounded by `MAX_STATES`; one dictionary look-up per member at run time.
Never: touches a payload, or says what is in one.

INVARIANT: a State is complete when `build` returns it and never changes again, so threads may share it.
"""

cimport cython

from ..errors import ObligationFault

MAX_DEPTH = 32          # segments of one path
MAX_STATES = 4096       # wildcards multiply: an answer that needs more is refused
cdef str DIGITS = "0123456789"


cdef str shown(object value):
    """A value for an error message: short, one line, plain ASCII, whatever is in it."""
    cdef str text
    if type(value) is not str:
        return type(value).__name__
    text = ascii(value[:60])
    return text[1:min(len(text) - 1, 61)].replace("`", "'")


cdef bint well_formed(str text):
    """True if the text has a UTF-8 form: Python strings may hold lone surrogates, which have none."""
    cdef Py_UCS4 character
    if text.isascii():
        return True
    for character in text:
        if 0xD800 <= character <= 0xDFFF:
            return False
    return True


cdef tuple segments(object text, str field):
    """The segments of a path. Raises ObligationFault on anything that is not a JSON Pointer."""
    cdef list parts
    cdef str part
    if type(text) is not str or not well_formed(text):
        raise ObligationFault(field, "must be text, a JSON Pointer such as `/user/email`")
    if text == "":
        return ()
    if text[0] != "/":
        raise ObligationFault(field, f"`{shown(text)}` is not a JSON Pointer: start it with `/`")
    parts = text[1:].split("/")
    if len(parts) > MAX_DEPTH:
        raise ObligationFault(field, f"is a path of {len(parts)} segments: use at most {MAX_DEPTH}")
    for part in parts:
        if "~" in part.replace("~0", "//").replace("~1", "//"):     # two characters, so that none joins up anew
            raise ObligationFault(field, f"`{shown(text)}` has a stray `~`: write `~0` for `~` and `~1` for `/`")
    return tuple([part.replace("~1", "/").replace("~0", "~") for part in parts])


cdef bint meet(tuple one, tuple other):
    """True if some payload has a place that both paths name."""
    cdef str a, b
    if len(one) != len(other):
        return False
    for a, b in zip(one, other):
        if a != b and a != "*" and b != "*":
            return False
    return True


cdef bint is_position(str segment):
    """RFC 6901, section 4: digits without a leading zero. (`-` is the item after the last: never there.)"""
    cdef Py_UCS4 character
    if segment == "" or (segment[0] == "0" and len(segment) > 1):
        return False
    for character in segment:
        if character not in DIGITS:
            return False
    return True


@cython.final
@cython.auto_pickle(False)
cdef class Rule:
    """One path of one obligation."""


@cython.final
@cython.auto_pickle(False)
cdef class State:
    """What the rules say about one place and those below it."""


cdef State GONE = State.__new__(State)
GONE.gone = True
GONE.path = GONE.name = ""
cdef State REDACTED = State.__new__(State)
REDACTED.null = True


cdef State build(list rules, int groups):
    """The state of the whole payload, or None where no rule says anything. `groups` counts the `keep`s."""
    return state_of(frozenset(range(len(rules))), frozenset(range(groups)), 0, rules, {})


cdef State state_of(frozenset active, frozenset open_groups, int depth, list rules, dict known):
    """`active`: the rules that lead to this place; `open_groups`: the keeps that have not reached one of theirs."""
    cdef tuple key = (depth, active, open_groups)
    if key not in known:
        if len(known) >= MAX_STATES:
            raise ObligationFault("obligations", f"need over {MAX_STATES} states: use fewer paths with `*`")
        known[key] = None       # counted before the recursion; nothing can ask for it, as depth only grows
        known[key] = new_state(active, open_groups, depth, rules, known)
    return known[key]


cdef State new_state(frozenset active, frozenset open_groups, int depth, list rules, dict known):
    cdef Rule rule
    cdef State state
    cdef list here = [], on = []
    cdef set reached = set(), leads = set()
    cdef bint redacted = False
    for i in sorted(active):
        rule = rules[i]
        (here if len(rule.segments) == depth else on).append(i)
        if rule.effect == KEEP:
            (reached if len(rule.segments) == depth else leads).add(rule.group)
        elif len(rule.segments) == depth:
            if rule.effect == DROP:
                return GONE
            redacted = redacted or rule.effect == REDACT
    open_groups = open_groups - reached
    if not open_groups <= leads:
        return GONE
    if redacted:
        return REDACTED
    state = State.__new__(State)
    for i in here:
        rule = rules[i]
        if rule.effect == MASK and (state.masked is None or rule.path < state.masked):
            state.masked, state.style, state.salt = rule.path, rule.style, rule.salt
    on = [i for i in on if (<Rule> rules[i]).effect != KEEP or (<Rule> rules[i]).group in open_groups]
    if on:
        branch(state, on, open_groups, depth, rules, known)
    return state if on or state.masked is not None else None


cdef int branch(State state, list on, frozenset open_groups, int depth, list rules, dict known) except -1:
    """Give a state the states below it."""
    cdef Rule rule
    cdef str segment
    cdef dict by_segment = {}
    cdef State below
    cdef frozenset stars
    state.inner, state.members, state.items = True, {}, {}
    for i in on:
        rule = rules[i]
        segment = rule.segments[depth]
        by_segment.setdefault(segment, []).append(i)
        if state.path is None or rule.path < state.path:
            state.path = rule.path
        if segment != "*" and not is_position(segment):
            state.named = True
            if state.name is None or rule.path < state.name:
                state.name = rule.path
    stars = frozenset(by_segment.pop("*", ()))
    state.rest = state_of(stars, open_groups, depth + 1, rules, known)
    for segment, those in by_segment.items():
        below = state_of(stars.union(those), open_groups, depth + 1, rules, known)
        state.members[segment] = below
        if is_position(segment) and len(segment) <= 18:     # no list is longer
            state.items[int(segment)] = below
    return 0
