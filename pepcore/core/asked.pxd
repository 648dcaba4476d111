# A question as its caller gave it: three strings, a context and a chain, hashed and compared without running Python code.
#
# Promises: equal means equal strings, contexts of equal keys, exact types and values (1 is not True), in any order, and
# the same chain in the same order; only exact str, int and bool are looked at, so that a lookup in a table of questions
# is atomic under the GIL.
# Never: runs Python code; keeps a reference.

from cpython.bool cimport PyBool_Check
from cpython.dict cimport PyDict_CheckExact, PyDict_GetItemWithError, PyDict_Next
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject, Py_EQ
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_GET_LENGTH
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    /* An exact str keeps its hash, once it was computed; that runs no Python code. */
    static inline Py_hash_t pep_str_hash(PyObject* s) {
        Py_hash_t h = ((PyASCIIObject*)s)->hash;
        return h != -1 ? h : PyObject_Hash(s);
    }
    /* Strings in the compact form, which every exact str has, are equal if kind, length and bytes are. */
    static inline int pep_same_str(PyObject* a, PyObject* b) {
        if (a == b) return 1;
        if (PyUnicode_GET_LENGTH(a) != PyUnicode_GET_LENGTH(b) || PyUnicode_KIND(a) != PyUnicode_KIND(b)) return 0;
        return memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b),
                      (size_t)PyUnicode_GET_LENGTH(a) * (size_t)PyUnicode_KIND(a)) == 0;
    }
    """
    Py_hash_t str_hash "pep_str_hash"(PyObject*) noexcept
    bint same_str "pep_same_str"(PyObject*, PyObject*) noexcept
    Py_hash_t PyObject_Hash(PyObject*) noexcept                        # of a str, int or bool: cannot fail
    int PyObject_RichCompareBool(PyObject*, PyObject*, int) noexcept    # of two ints: cannot fail
    Py_ssize_t PyDict_GET_SIZE(PyObject*) noexcept
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t) noexcept

cdef enum:
    MAX_MEMBERS = 16            # of a context
    MAX_CHAIN = 16              # of those on whose behalf it is asked


cdef struct Asked:
    uint64_t hash
    PyObject* subject           # all borrowed, exact str
    PyObject* action
    PyObject* resource
    PyObject* context           # a plain dict that is not empty; NULL: none
    PyObject* chain             # a tuple of exact str that is not empty; NULL: none


cdef inline uint64_t mix(uint64_t a, uint64_t b, uint64_t c) noexcept nogil:
    cdef uint64_t h = a * 0x9E3779B185EBCA87ULL
    h = (h ^ (h >> 29)) + b
    h *= 0xC2B2AE3D27D4EB4FULL
    h = (h ^ (h >> 31)) + c
    h *= 0x165667B19E3779F9ULL
    return h ^ (h >> 32)


cdef inline bint is_plain(PyObject* value) noexcept:
    """Whether hashing and comparing this value runs no Python code and equal values are one value on the wire."""
    return (
        PyUnicode_CheckExact(<object> value) or PyLong_CheckExact(<object> value) or PyBool_Check(<object> value)
    )


cdef inline uint64_t context_hash(PyObject* context) noexcept:
    """A sum over the pairs, so that their order does not matter; 0 where a key or a value is not plain."""
    cdef Py_ssize_t at = 0
    cdef PyObject* key
    cdef PyObject* value
    cdef uint64_t pair, out = 0x51ED270B
    if not PyDict_CheckExact(<object> context) or PyDict_GET_SIZE(context) > MAX_MEMBERS:
        return 0
    while PyDict_Next(<object> context, &at, &key, &value):
        if not PyUnicode_CheckExact(<object> key) or not is_plain(value):
            return 0
        pair = <uint64_t> str_hash(key) * 0x9E3779B185EBCA87ULL ^ <uint64_t> PyObject_Hash(value)
        out += (pair ^ (pair >> 31)) * 0xC2B2AE3D27D4EB4FULL
    return out | 1


cdef inline bint same_value(PyObject* a, PyObject* b) noexcept:
    """Equal in type and value; both are plain."""
    if a == b:
        return True
    if PyUnicode_CheckExact(<object> a) and PyUnicode_CheckExact(<object> b):
        return same_str(a, b)
    return (
        PyLong_CheckExact(<object> a) and PyLong_CheckExact(<object> b)
        and PyObject_RichCompareBool(a, b, Py_EQ) == 1
    )


cdef inline bint same_context(PyObject* a, PyObject* b) noexcept:
    """Both are plain: exact str keys, so that a lookup runs no Python code."""
    cdef Py_ssize_t at = 0
    cdef PyObject* key
    cdef PyObject* value
    cdef PyObject* other
    if a == NULL or b == NULL:
        return a == b
    if PyDict_GET_SIZE(a) != PyDict_GET_SIZE(b):
        return False
    while PyDict_Next(<object> a, &at, &key, &value):
        other = PyDict_GetItemWithError(<object> b, <object> key)
        if other == NULL or not same_value(value, other):
            return False
    return True


cdef inline bint same_rest(PyObject* kept, const Asked* q) noexcept:
    """Whether what was kept of context and chain is what is asked: a dict, or with a chain (chain, dict or None)."""
    cdef PyObject* chain
    cdef PyObject* context
    cdef Py_ssize_t i
    if q.chain == NULL:
        if kept == NULL or q.context == NULL:
            return kept == q.context
        return PyDict_CheckExact(<object> kept) and same_context(kept, q.context)
    if kept == NULL or not PyTuple_CheckExact(<object> kept):
        return False
    chain, context = PyTuple_GET_ITEM(kept, 0), PyTuple_GET_ITEM(kept, 1)
    if PyTuple_GET_SIZE(<object> chain) != PyTuple_GET_SIZE(<object> q.chain):
        return False
    for i in range(PyTuple_GET_SIZE(<object> chain)):
        if not same_str(PyTuple_GET_ITEM(chain, i), PyTuple_GET_ITEM(q.chain, i)):
            return False
    return same_context(NULL if <object> context is None else context, q.context)


cdef inline bint read(Asked* q, PyObject* subject, PyObject* action, PyObject* resource, PyObject* context,
                      PyObject* chain) noexcept:
    """Read a question as a key. False: it is not plain, and asked every time. `context` may be None."""
    cdef uint64_t rest = 0
    cdef Py_ssize_t i
    if (
        not PyUnicode_CheckExact(<object> subject) or not PyUnicode_CheckExact(<object> action)
        or not PyUnicode_CheckExact(<object> resource) or not PyTuple_CheckExact(<object> chain)
    ):
        return False
    q.subject, q.action, q.resource, q.context, q.chain = subject, action, resource, NULL, NULL
    if <object> context is not None:
        rest = context_hash(context)
        if rest == 0:
            return False
        if PyDict_GET_SIZE(context) == 0:
            rest = 0
        else:
            q.context = context
    if PyTuple_GET_SIZE(<object> chain) != 0:
        if PyTuple_GET_SIZE(<object> chain) > MAX_CHAIN:
            return False
        q.chain = chain
        for i in range(PyTuple_GET_SIZE(<object> chain)):
            if not PyUnicode_CheckExact(<object> PyTuple_GET_ITEM(chain, i)):
                return False
            rest = mix(rest, <uint64_t> str_hash(PyTuple_GET_ITEM(chain, i)), <uint64_t> i + 1)
    q.hash = mix(<uint64_t> str_hash(subject), <uint64_t> str_hash(action), <uint64_t> str_hash(resource) ^ rest)
    return True
