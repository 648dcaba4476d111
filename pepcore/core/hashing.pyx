"""XXH3 with a seed, from the `xxhash` wheel.

Promises: `xxh3` gives the same value as `xxhash.xxh3_64_intdigest(data, seed)`. The wheel carries no header, but its
library exports the functions of xxHash; this unit binds one of them when it is imported, compares it with the
wheel's own Python function, and uses that function where the symbol is missing or differs.
Never: lets a hash decide. XXH3 is not collision-resistant under a secret seed (xxHash issue 1127), so the hash
picks the slot and the whole key is compared (DESIGN, D2).
"""

import ctypes

import xxhash
import xxhash._xxhash

from libc.stdint cimport uint64_t, uintptr_t


cdef uint64_t _through_python(const void* data, size_t size, uint64_t seed) noexcept with gil:
    try:
        return xxhash.xxh3_64_intdigest((<const char*> data)[:size], seed)
    except BaseException:
        return 0    # any value is safe: the hash only picks the slot


def _bind():
    """Return the address of the wheel's XXH3_64bits_withSeed, or 0."""
    for name in ("XXH3_64bits_withSeed_dispatch", "XXH3_64bits_withSeed"):
        try:
            function = ctypes.CDLL(xxhash._xxhash.__file__)[name]
        except (AttributeError, OSError):
            continue
        function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
        function.restype = ctypes.c_uint64
        samples = [bytes(range(n)) for n in (0, 3, 16, 17, 128, 129, 240, 250)]
        if all(function(s, len(s), 7 * len(s)) == xxhash.xxh3_64_intdigest(s, 7 * len(s)) for s in samples):
            return ctypes.cast(function, ctypes.c_void_p).value
    return 0


cdef uintptr_t _address = _bind()
xxh3 = <xxh3_t> _address if _address else <xxh3_t> _through_python
NATIVE = bool(_address)


def digest(bytes data not None, unsigned long long seed):
    """Return XXH3-64 of `data` under `seed`."""
    return xxh3(<const char*> data, len(data), seed)
