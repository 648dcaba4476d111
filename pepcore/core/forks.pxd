from libc.stdint cimport uint64_t

cdef uint64_t* life             # which process of a line of forks this is; 0: one that nobody told
