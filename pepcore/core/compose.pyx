"""Python values to the canonical bytes of a question.

Promises: the bytes are canonical as they come (`question.canonical` returns them unchanged), so that two callers who
ask the same thing make the same key. Strings, ints, floats, bools, None, lists, tuples and dicts with string keys
are taken, subclasses of str and int by their value.
Never: runs Python code of a value; takes bytes, datetimes, sets, NaN, infinities, integers outside 64 bits, lone
surrogates, or nesting deeper than the limit: each is a BadQuestion that names the place.
"""

cimport cython
from cpython.dict cimport PyDict_Check, PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.list cimport PyList_Check, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_AsUnsignedLongLong, PyLong_Check
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, qsort

from .cursor cimport Buffer, put, put_byte
from .msgpack cimport put_array_head, put_float, put_int, put_map_head, put_str_head, put_uint
from .question cimport MAX_CHAIN
from .values cimport Name, compare

from ..errors import BadQuestion
from ..model import Action, Entity

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL

cdef extern from "<math.h>" nogil:
    bint isfinite(double)

cdef enum:
    LIMIT = 1 << 24             # bytes of a question; frames have a smaller limit of their own
    DEPTH = 16

cdef struct Member:
    Name key
    PyObject* value             # borrowed: the dict is not touched while it is written


cdef str TOO_LARGE = "is too large: send less"
cdef object _Entity = Entity
cdef object _Action = Action


cdef int full(bint done) except -1:
    if not done:
        raise BadQuestion("question", TOO_LARGE)
    return 0


cdef int text(Buffer* b, object s, str place) except -1:
    cdef Py_ssize_t size
    cdef const char* data
    if not PyUnicode_Check(s):
        raise BadQuestion(place, f"must be a string, not `{type(s).__name__}`")
    try:
        data = PyUnicode_AsUTF8AndSize(s, &size)
    except UnicodeEncodeError:
        raise BadQuestion(place, "has a lone surrogate: send valid text") from None
    return full(put_str_head(b, size) and put(b, data, size))


cdef int value(Buffer* b, object v, int depth, str place) except -1:
    cdef int overflow = 0
    cdef long long number
    cdef Py_ssize_t i
    if v is None:
        return full(put_byte(b, 0xC0))
    if v is True or v is False:
        return full(put_byte(b, 0xC3 if v is True else 0xC2))
    if PyUnicode_Check(v):
        return text(b, v, place)
    if PyLong_Check(v):
        number = PyLong_AsLongLongAndOverflow(v, &overflow)
        if overflow == 0:
            return full(put_int(b, number))
        if overflow > 0:
            try:
                return full(put_uint(b, PyLong_AsUnsignedLongLong(v)))
            except OverflowError:
                pass
        raise BadQuestion(place, "is an integer outside 64 bits: send it as text")
    if PyFloat_Check(v):
        if not isfinite(PyFloat_AS_DOUBLE(v)):
            raise BadQuestion(place, "is not a finite number")
        return full(put_float(b, PyFloat_AS_DOUBLE(v)))
    if PyDict_Check(v):
        return mapping(b, v, depth, place)
    if PyList_Check(v) or PyTuple_Check(v):
        if depth > DEPTH:
            raise BadQuestion(place, f"is nested deeper than {DEPTH}")
        full(put_array_head(b, len(v)))
        for i in range(PyList_GET_SIZE(v) if PyList_Check(v) else PyTuple_GET_SIZE(v)):
            value(b, <object> (PyList_GET_ITEM(v, i) if PyList_Check(v) else PyTuple_GET_ITEM(v, i)), depth + 1,
                  place)
        return 0
    raise BadQuestion(place, f"is a `{type(v).__name__}`: send text, numbers, booleans, lists or maps")


cdef int mapping(Buffer* b, object d, int depth, str place) except -1:
    cdef Py_ssize_t n, i = 0, at = 0
    cdef Member* members
    cdef PyObject* k
    cdef PyObject* v
    if d is None:
        return full(put_byte(b, 0x80))
    if not PyDict_Check(d):
        raise BadQuestion(place, f"must be a map, not `{type(d).__name__}`")
    if depth > DEPTH:
        raise BadQuestion(place, f"is nested deeper than {DEPTH}")
    n = len(<dict> d)
    full(put_map_head(b, n))
    if n == 0:
        return 0
    members = <Member*> malloc(n * sizeof(Member))
    if members == NULL:
        raise MemoryError
    try:
        while PyDict_Next(d, &at, &k, &v):
            if not PyUnicode_Check(<object> k):
                raise BadQuestion(place, "has a key that is not a string")
            try:
                members[i].key.at = <const unsigned char*> PyUnicode_AsUTF8AndSize(<object> k, &members[i].key.size)
            except UnicodeEncodeError:
                raise BadQuestion(place, "has a key with a lone surrogate") from None
            members[i].value = v
            i += 1
        if n > 1:
            qsort(members, n, sizeof(Member), &in_order)
        for i in range(n):
            if i > 0 and compare(&members[i - 1].key, &members[i].key) == 0:
                raise BadQuestion(place, "has a key twice")     # a str subclass with a hash of its own
            full(put_str_head(b, members[i].key.size) and put(b, members[i].key.at, members[i].key.size))
            try:
                value(b, <object> members[i].value, depth + 1, "")
            except BadQuestion as inner:
                if inner.reason is TOO_LARGE:       # of the whole: the value that met the limit may be a small one
                    raise
                key = (<const char*> members[i].key.at)[:min(members[i].key.size, 64)].decode("utf-8", "replace")
                below = f".{inner.field}" if inner.field else ""
                raise BadQuestion(f"{place}.{key}{below}" if place else f"{key}{below}", inner.reason) from None
    finally:
        free(members)
    return 0


cdef int in_order(const void* a, const void* b) noexcept nogil:
    return compare(&(<const Member*> a).key, &(<const Member*> b).key)


cdef int entity(Buffer* b, object e, int depth, str place) except -1:
    if PyUnicode_Check(e):
        kind, mark, name = str.partition(e, "::")
        if not mark or not kind:
            raise BadQuestion(place, f"`{e}` has no type: write it as `Type::id`")
        properties = None
    elif type(e) is _Entity:
        kind, name, properties = e.type, e.id, e.properties
    elif PyDict_Check(e):
        known(e, ("type", "id", "properties"), place)
        kind, name, properties = e.get("type"), e.get("id"), e.get("properties")
    else:
        raise BadQuestion(place, f"must be `Type::id`, an Entity or a dict, not `{type(e).__name__}`")
    full(put_array_head(b, 3))
    text(b, kind, place + ".type")
    if not kind:
        raise BadQuestion(place + ".type", "must not be empty")
    text(b, name, place + ".id")
    return mapping(b, properties, depth + 1, place + ".properties")


cdef int known(object d, tuple names, str place) except -1:
    for name in d:
        if name not in names:
            raise BadQuestion(place, f"has no member `{name}`: attributes go under `properties`")
    return 0


cdef int act(Buffer* b, object a) except -1:
    if PyUnicode_Check(a):
        name, properties = a, None
    elif type(a) is _Action:
        name, properties = a.name, a.properties
    elif PyDict_Check(a):
        known(a, ("name", "properties"), "action")
        name, properties = a.get("name"), a.get("properties")
    else:
        raise BadQuestion("action", f"must be a name, an Action or a dict, not `{type(a).__name__}`")
    full(put_array_head(b, 2))
    text(b, name, "action.name")
    if not name:
        raise BadQuestion("action.name", "must not be empty")
    return mapping(b, properties, 3, "action.properties")


def compose(subject, action, resource, context=None, chain=()):
    """Return the canonical bytes of a question. Raises BadQuestion, which names the place and the reason."""
    cdef Buffer b
    b.data, b.size, b.room, b.limit = NULL, 0, 0, LIMIT
    try:
        full(put_array_head(&b, 5))
        entity(&b, subject, 2, "subject")
        act(&b, action)
        entity(&b, resource, 2, "resource")
        mapping(&b, context, 2, "context")
        if PyUnicode_Check(chain) or not (PyTuple_Check(chain) or PyList_Check(chain)):
            raise BadQuestion("on_behalf_of", "must be a list of entities")
        if len(chain) > MAX_CHAIN:
            raise BadQuestion("on_behalf_of", f"has {len(chain)} members, at most {MAX_CHAIN} are taken")
        full(put_array_head(&b, len(chain)))
        for member in chain:
            entity(&b, member, 3, "on_behalf_of")
        return (<const char*> b.data)[:b.size]
    finally:
        free(b.data)
