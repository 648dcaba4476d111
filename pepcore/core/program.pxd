from .paths cimport State


cdef class Program:
    cdef State state                # of the whole payload; None: no path says anything
    cdef Py_ssize_t rows            # at most so many; -1: as many as there are
    cdef frozenset taken            # folded names of headers that go
    cdef tuple given                # headers that come
    cdef readonly bint data         # has something to do on JSON values and Rows
    cdef readonly bint headers      # has something to do on Headers


cdef Program new_program(State state, Py_ssize_t rows, frozenset taken, tuple given)
