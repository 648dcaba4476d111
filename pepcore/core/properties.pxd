cdef str folded(str name)
cdef bint is_token(object text)
