cdef class Headers:
    cdef readonly object items


cdef class Rows:
    cdef readonly object columns
    cdef readonly object rows


cdef object parsed(object data)
cdef bytes printed(object value)
