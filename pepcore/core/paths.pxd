cdef str shown(object value)
cdef bint well_formed(str text)
cdef tuple segments(object text, str field)
cdef bint meet(tuple one, tuple other)


cdef enum Effect:
    REDACT
    MASK
    DROP
    KEEP


cdef class Rule:
    cdef Effect effect
    cdef int group              # which `keep` obligation it belongs to
    cdef str path               # as the policy wrote it: for faults
    cdef tuple segments
    cdef str style              # of a mask
    cdef bytes salt             # of a hash


cdef class State:
    cdef bint gone              # the place itself is removed
    cdef bint null              # the place is redacted: nothing below it is looked at
    cdef bint inner             # some path goes on below: only a list, an object or null can stand here
    cdef bint named             # ... by a name that is no position: a list cannot stand here
    cdef str path               # a path that goes on, for the fault
    cdef str name               # a path that goes on by a name, for the fault
    cdef str masked             # the path of the mask, None where there is none
    cdef str style
    cdef bytes salt
    cdef dict members           # next segment -> State, or None: nothing to do there
    cdef dict items             # position in a list -> State or None
    cdef State rest             # every other member or item


cdef State build(list rules, int groups)
