"""The program that carries out the payload obligations of one answer, in one walk over the payload.

Promises: never changes its input and shares no list or object with its result; every value of the result has been
looked at (exact types, finite numbers, integers in 64 bits, text that has a UTF-8 form, depth, count); whatever goes
wrong is an ObligationFault, which says nothing of what the payload holds. A program never changes: threads share it.
Never: releases a part. A payload of a kind that the program has nothing to do on is handed back as it is; but a
header list that is not wrapped in `Headers`, where headers are to be set or removed, is a fault.

What cannot be done as written is a fault: a path through a scalar, a name on a list, a mask of a list, a limit on an
object. What is not there needs nothing done: an absent member, a position after the end, null.
INVARIANT: the recursion is at most MAX_DEPTH deep, whatever the payload: a list that holds itself is a deep one.
"""

cimport cython
from libc.math cimport isfinite

from ..errors import ObligationFault
from .paths cimport State, shown, well_formed
from .payload cimport Headers, Rows, parsed, printed
from .properties cimport folded, is_token

MAX_PAYLOAD_DEPTH = 64
MAX_VALUES = 1 << 22            # values looked at in one run: a small object that repeats itself can be a huge tree
cdef object LEAST = -(2**63)
cdef object MOST = 2**64 - 1
cdef object HMAC = None         # hashlib is slow to import and most programs have no use for it


cdef object fault(str reason):
    return ObligationFault("payload", reason)


# ---- one value -------------------------------------------------------------------------------------------------

cdef object walk(object value, State state, int depth, Py_ssize_t* left):
    """The new value at a place whose state is `state` (None: copy it)."""
    cdef object kind = type(value)
    left[0] -= 1
    if left[0] < 0:
        raise fault(f"holds over {MAX_VALUES} values: ask for it in parts")
    if state is not None:
        if state.null or value is None:
            return None
        if state.inner and kind is not dict and kind is not list:
            what = f"has a `{kind.__name__}` on the way of the path `{shown(state.path)}`"
            raise fault(f"{what}: only lists and objects can be entered")
        if state.masked is not None:
            return hidden(value, state)
    if kind is str:
        if not well_formed(value):
            raise fault("holds text with a lone surrogate, which no JSON text can hold")
    elif kind is dict:
        return walk_object(value, state, depth, left)
    elif kind is list:
        return walk_list(value, state, depth, left, -1)
    elif kind is int:
        if not LEAST <= value <= MOST:
            raise fault("holds a whole number outside -2^63 to 2^64-1: send it as text")
    elif kind is float:
        if not isfinite(<double> value):
            raise fault("holds a number that is not finite")
    elif value is not None and kind is not bool:
        raise fault(f"holds a `{kind.__name__}`, which is no JSON value: convert it first")
    return value


cdef dict walk_object(dict value, State state, int depth, Py_ssize_t* left):
    cdef dict out = {}
    cdef State below = None
    if depth >= MAX_PAYLOAD_DEPTH:
        raise fault(f"is nested more than {MAX_PAYLOAD_DEPTH} deep")
    for name, member in value.items():
        if type(name) is not str or not well_formed(name):
            raise fault("has an object with a name that is not text")
        if state is not None:
            below = state.members.get(name, state.rest)
            if below is not None and below.gone:
                continue
        out[name] = walk(member, below, depth + 1, left)
    return out


cdef list walk_list(list value, State state, int depth, Py_ssize_t* left, Py_ssize_t most):
    cdef list out = []
    cdef State below = None
    cdef Py_ssize_t i = -1
    if depth >= MAX_PAYLOAD_DEPTH:
        raise fault(f"is nested more than {MAX_PAYLOAD_DEPTH} deep")
    if state is not None and state.named:
        what = f"has a list on the way of the path `{shown(state.name)}`"
        raise fault(f"{what}, which names a member: use a position or `*`")
    for item in value:
        i += 1
        if i == most:
            break
        if state is not None:
            below = state.items.get(i, state.rest)
            if below is not None and below.gone:
                continue
        out.append(walk(item, below, depth + 1, left))
    return out


cdef str hidden(object value, State state):
    """The mask of a text or a whole number."""
    global HMAC
    cdef str text
    if type(value) is int and LEAST <= value <= MOST:
        text = str(value)
    elif type(value) is str and well_formed(value):
        text = value
    else:
        raise fault(f"has a `{type(value).__name__}` at `{shown(state.masked)}` that has no mask: redact or drop it")
    if state.style == "hash":
        if HMAC is None:
            from hmac import digest
            HMAC = digest
        return "sha256:" + HMAC(state.salt, text.encode(), "sha256").hex()[:32]
    if state.style == "last-4" and len(text) >= 8:      # of fewer, four would be more than half
        return "****" + text[len(text) - 4:]
    return "****"


# ---- rows and headers ------------------------------------------------------------------------------------------

cdef object cell(object value, State state, Py_ssize_t* left):
    """A cell: a JSON value, or opaque (a date, bytes, a decimal): it can be left, redacted or dropped as it is."""
    cdef object kind = type(value)
    if (
        value is None or kind is str or kind is int or kind is bool or kind is float or kind is list or kind is dict
        or state is not None or isinstance(value, (str, int, float, list, dict))
    ):
        return walk(value, state, 0, left)
    left[0] -= 1
    return value


cdef Rows walk_rows(Rows table, State state, Py_ssize_t most, Py_ssize_t* left):
    cdef list names = [], keep = [], out = [], cells
    cdef tuple columns, found
    cdef State below = None
    cdef Py_ssize_t i, width
    if state is not None and (state.null or state.masked is not None):
        raise fault("is a table, which the empty path cannot name: name its columns")
    if not plain(table.columns) or not plain(table.rows):
        raise fault("is a table whose columns or rows are not a list or tuple")
    columns = tuple(table.columns)      # of lists, copies: another thread may change them while they are read
    width = len(columns)
    for i, name in enumerate(columns):
        if type(name) is not str or not well_formed(name):
            raise fault("is a table with a column name that is not text")
        if state is not None:
            below = state.members.get(name, state.rest)
            if below is not None and below.gone:
                continue
        names.append(name)
        keep.append((i, below))
    for row in table.rows:
        if len(out) == most:
            break
        found = tuple(row) if plain(row) else ()
        if not plain(row) or len(found) != width:
            raise fault("is a table with a row that is not a list or tuple with one cell per column")
        cells = []
        for i, below in keep:
            cells.append(cell(found[i], below, left))
        out.append(tuple(cells))
    return Rows(tuple(names), out)


cdef bint plain(object value):
    return type(value) is tuple or type(value) is list


cdef Headers walk_headers(Headers fields, frozenset taken, tuple given):
    cdef list out = []
    if not plain(fields.items):
        raise fault("are headers that are not a list or tuple of pairs")
    for pair in fields.items:
        if not plain(pair) or len(pair) != 2:
            raise fault("are headers with an item that is not a pair of name and value")
        name, value = pair
        if not is_token(name):
            raise fault("are headers with a name that is no token (RFC 9110): what it stands for is unclear")
        if type(value) is not str or "\r" in value or "\n" in value or "\0" in value:
            raise fault("are headers with a value that is not text or holds a line end or NUL")
        if folded(name) not in taken:
            out.append((name, value))
    out.extend(given)
    return Headers(tuple(out))


cdef bint bare(object payload):
    """Is it a header list that nobody wrapped? Only names first in every pair: rows of other things are data."""
    cdef bint some = False
    if not isinstance(payload, (list, tuple)):
        return False
    for pair in payload:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], (str, bytes)):
            return False
        some = True
    return some


# ---- the program -----------------------------------------------------------------------------------------------

cdef object on_data(Program program, object payload):
    cdef Py_ssize_t left = MAX_VALUES
    cdef State state = program.state
    if type(payload) is Rows:
        return walk_rows(payload, state, program.rows, &left)
    if program.rows >= 0:
        if type(payload) is not list:
            raise fault("is neither a list nor rows, so that a limit has nothing to count")
        if state is None or (state.inner and state.masked is None):
            return walk_list(payload, state, 0, &left, program.rows)
    return walk(payload, state, 0, &left)


@cython.final
@cython.auto_pickle(False)
cdef class Program:
    """The payload obligations of one answer, made by `pepcore.core.obligation.compile`."""

    def __init__(self):
        raise TypeError("programs are made by pepcore.core.obligation.compile()")

    def run(self, payload):
        """A new payload of the same kind, with the obligations carried out. Raises ObligationFault."""
        cdef bint headers = type(payload) is Headers
        try:
            # Untouched, it would carry out the very header that an obligation removes.
            if self.headers and not headers and bare(payload):
                raise fault("is a plain list of pairs, which header obligations pass over: wrap it in `pepcore.Headers`")
            if not (self.headers if headers else self.data):
                return payload
            return walk_headers(payload, self.taken, self.given) if headers else on_data(self, payload)
        except ObligationFault:
            raise
        except Exception as error:      # no memory, a list that another thread empties meanwhile: all the same, a fault
            raise fault(f"could not be worked on (`{type(error).__name__}`)") from None

    def run_json(self, data):
        """The same over JSON text; canonical JSON text comes out, also where there is nothing to do."""
        value = parsed(data)
        try:
            return printed(on_data(self, value))
        except ObligationFault:
            raise
        except Exception as error:
            raise fault(f"could not be worked on (`{type(error).__name__}`)") from None


cdef Program new_program(State state, Py_ssize_t rows, frozenset taken, tuple given):
    cdef Program program = Program.__new__(Program)
    program.state, program.rows, program.taken, program.given = state, rows, taken, given
    program.data = state is not None or rows >= 0
    program.headers = bool(taken)
    return program
