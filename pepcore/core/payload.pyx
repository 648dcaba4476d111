"""What obligations are carried out on: JSON values, Headers, Rows; and JSON text, strictly read, canonically written.

Promises: JSON text is UTF-8 without a mark, no name occurs twice in an object, no NaN; written with sorted names
(by code point, which is the order of UTF-8 bytes), no spaces and shortest numbers, so equal values are equal bytes.
Never: judges or copies what Headers and Rows are given. The program that runs over them does, so that a bad payload
is one kind of fault, in one place, before anything of it is released; `repr` shows sizes, not contents.
"""

cimport cython
from msgspec.json import Encoder

from ..errors import ObligationFault

cdef object ENCODE = Encoder(order="sorted").encode
cdef object DECODE = None           # made at the first JSON text: the json module is not imported before


@cython.final
@cython.auto_pickle(False)
cdef class Headers:
    """Header fields in their order: `Headers([(name, value), ...])`."""

    def __init__(self, items):
        self.items = items

    def __eq__(self, other):
        return type(other) is Headers and self.items == (<Headers> other).items

    def __repr__(self):
        return f"<Headers: {len(self.items)}>"


@cython.final
@cython.auto_pickle(False)
cdef class Rows:
    """A table: `Rows(columns, rows)`, each row a tuple or list with one cell per column."""

    def __init__(self, columns, rows):
        self.columns = columns
        self.rows = rows

    def __eq__(self, other):
        return (
            type(other) is Rows and self.columns == (<Rows> other).columns and self.rows == (<Rows> other).rows
        )

    def __repr__(self):
        return f"<Rows: {len(self.rows)} of {len(self.columns)} columns>"


def _object(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ObligationFault("payload", "has an object with one name twice: which of the two is meant is unclear")
    return members


def _whole(digits):
    if len(digits) > 20:
        raise ObligationFault("payload", "holds a whole number outside -2^63 to 2^64-1: send it as text")
    return int(digits)


def _constant(name):
    raise ObligationFault("payload", f"holds `{name}`, which is not JSON")


cdef object parsed(object data):
    """The value of a JSON text. Raises ObligationFault."""
    global DECODE
    if type(data) is not bytes:
        raise ObligationFault("payload", "must be bytes of JSON text")
    if DECODE is None:
        from json import JSONDecoder
        DECODE = JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_constant=_constant).decode
    try:
        return DECODE((<bytes> data).decode("utf-8"))
    except UnicodeDecodeError:
        raise ObligationFault("payload", "is not valid UTF-8") from None
    except RecursionError:
        raise ObligationFault("payload", "is nested too deep") from None
    except ValueError as error:
        raise ObligationFault("payload", f"is not JSON: look at character {getattr(error, 'pos', 0)}") from None


cdef bytes printed(object value):
    return ENCODE(value)
