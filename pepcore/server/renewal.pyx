"""The lease of the page: whoever maps it believes it only while this thread runs (DESIGN, D3).

Promises: renews every RENEW_NS, from a thread of C that needs no GIL, so that a long evaluation or a collection of
garbage does not let readers lapse; `stop` returns when nobody can write the lease any more, and leaves it at 0. Each
renewal looks first whether the daemon's lock file is where it was. Where it is not, another daemon may hold a new one:
the lease is 0 from then on, and whoever reads `tell` hears of it.
Never: acknowledges or revokes anything; runs Python code; outlives its page (it holds it).
A daemon that is stopped or killed renews nothing, and every reader is on its own within the lease's length.

INVARIANT: the lease ends at most PEP_LEASE_NS after a moment at which the lock file was seen in its place, however long
this thread sleeps between its steps: the clock is read before the look, and stored after it.
"""

cimport cython
from libc.errno cimport ENOENT, ENOTDIR, errno
from libc.stdint cimport int64_t, uint64_t

from ..core.clocks cimport boottime
from ..core.page cimport LEASE, PEP_LEASE_NS, Page, store

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int pthread_create(pthread_t*, const void*, void* (*)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)
    int pthread_mutex_init(pthread_mutex_t*, const void*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_condattr_init(pthread_condattr_t*)
    int pthread_condattr_setclock(pthread_condattr_t*, int)
    int pthread_cond_init(pthread_cond_t*, const pthread_condattr_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_timedwait(pthread_cond_t*, pthread_mutex_t*, const timespec*)

cdef extern from "<time.h>" nogil:
    int clock_gettime(int, timespec*)
    int CLOCK_MONOTONIC

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t*)
    int pthread_sigmask(int, const sigset_t*, sigset_t*)
    int SIG_SETMASK

cdef extern from "<sys/stat.h>" nogil:
    cdef struct seen "stat":
        uint64_t st_dev, st_ino, st_nlink
    int fstat(int, seen*)
    int lstat(const char*, seen*)

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t write(int, const void*, size_t)

cdef enum:
    RENEW_NS = 25000000

cdef struct Renewing:
    uint64_t* words
    const char* path            # of the lock file
    int lock, tell
    bint ended
    pthread_mutex_t mutex
    pthread_cond_t woken


cdef bint gone(const Renewing* r) noexcept nogil:
    """Whether somebody else could lock a file of this name. A path that cannot be looked at proves nothing."""
    cdef seen held, there
    if fstat(r.lock, &held) != 0 or held.st_nlink == 0:
        return True
    if lstat(r.path, &there) != 0:
        return errno == ENOENT or errno == ENOTDIR
    return held.st_dev != there.st_dev or held.st_ino != there.st_ino


cdef void* renew(void* given) noexcept nogil:
    cdef Renewing* r = <Renewing*> given
    cdef timespec until
    cdef uint64_t lease, one = 1
    pthread_mutex_lock(&r.mutex)
    while not r.ended:
        lease = <uint64_t> (boottime() + PEP_LEASE_NS)
        if gone(r):
            store(r.words + LEASE, 0)
            write(r.tell, &one, sizeof(one))
            break
        store(r.words + LEASE, lease)
        clock_gettime(CLOCK_MONOTONIC, &until)
        until.tv_nsec += RENEW_NS
        if until.tv_nsec >= 1000000000:
            until.tv_nsec -= 1000000000
            until.tv_sec += 1
        pthread_cond_timedwait(&r.woken, &r.mutex, &until)
    store(r.words + LEASE, 0)
    pthread_mutex_unlock(&r.mutex)
    return NULL


@cython.final
cdef class Renewal:
    """Renews the lease of a page from `start` to `stop`."""

    cdef Page page
    cdef bytes path
    cdef Renewing state
    cdef pthread_t thread
    cdef bint running

    def __cinit__(self, Page page not None):
        cdef pthread_condattr_t attributes
        self.page = page
        self.state.words = page.words
        pthread_mutex_init(&self.state.mutex, NULL)
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(&self.state.woken, &attributes)

    def start(self, int lock, bytes path not None, int tell):
        """Be believed from now on, while the locked file `lock` is the one at `path`; `tell` is an eventfd.

        Signals go to the other threads. Raises OSError where no thread can be had.
        """
        cdef sigset_t every, before
        cdef int failed
        if self.running:
            return
        self.path = path
        self.state.lock, self.state.path, self.state.tell = lock, self.path, tell
        self.state.ended = False
        sigfillset(&every)
        pthread_sigmask(SIG_SETMASK, &every, &before)
        failed = pthread_create(&self.thread, NULL, renew, &self.state)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if failed:
            raise OSError(failed, "the thread that renews the page's lease cannot be started")
        self.running = True

    def stop(self):
        """Be believed no more: the lease is 0 when this returns."""
        if not self.running:
            return
        with nogil:
            pthread_mutex_lock(&self.state.mutex)
            self.state.ended = True
            pthread_cond_signal(&self.state.woken)
            pthread_mutex_unlock(&self.state.mutex)
            pthread_join(self.thread, NULL)
        self.running = False

    def __dealloc__(self):
        self.stop()
