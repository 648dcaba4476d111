"""One read of one connection, compiled: what runs for every hit.

Promises: the bytes of a read go from the kernel into the gate and its replies back with one `recv` and one `send`; no
Python object is made for a hit; only what the gate could not answer, and what the kernel would not take, reaches
Python code (`rest`, in connection.py). Where several owners are connected, one that has used up its share of the loop
is read for later. What comes when the lease of our own page is over is answered only if `holds` says that this daemon
still is the one: it may have been stopped for long, and have a successor.
Never: decides; keeps bytes (the stream and the connection do); blocks (MSG_DONTWAIT); raises into the loop.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint64_t

from ..core.clocks cimport CLOCK_REALTIME, boottime, unix_ms, wall_was_set
from ..core.gate cimport Gate, Stream
from ..core.page cimport LEASE, load

cdef extern from "<sys/socket.h>" nogil:
    Py_ssize_t recv(int, void*, size_t, int)
    Py_ssize_t send(int, const void*, size_t, int)
    int MSG_DONTWAIT, MSG_NOSIGNAL

cdef extern from *:
    """
    #include <string.h>
    #include <sys/socket.h>
    /* As send(), with one or two descriptors that the peer finds beside the first byte. */
    static ssize_t pep_send_with(int fd, const void* data, size_t size, int flags, int first, int second) {
        int passed[2] = {first, second};
        size_t bytes = second < 0 ? sizeof(int) : 2 * sizeof(int);
        char room[CMSG_SPACE(2 * sizeof(int))] = {0};
        struct iovec part = {(void*)data, size};
        struct msghdr message = {0};
        struct cmsghdr* head;
        message.msg_iov = &part, message.msg_iovlen = 1;
        message.msg_control = room, message.msg_controllen = CMSG_SPACE(bytes);
        head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(head), passed, bytes);
        return sendmsg(fd, &message, flags);
    }
    """
    Py_ssize_t send_with "pep_send_with"(int, const void*, size_t, int, int, int) nogil

cdef enum:
    READ = 65536                # bytes that one turn of the loop takes from a peer: a few hundred questions
    SHARE_NS = 500000           # of the loop, for one owner at a time

# One buffer for all connections: what a read leaves over is copied into its stream before the next one begins.
cdef unsigned char buffer[READ]


@cython.final
cdef class Served:
    """Which owner was served last, when another one was (a miss is evaluated inline only if its peer is alone), and
    whether more than one is connected. `holds()`: whether we are the daemon of this socket; None: nobody else can be."""

    def __cinit__(self):
        self.owner = -1

    def wall_was_set(self, int64_t now, int64_t wall_ms):
        """Whether somebody set the wall clock since the last read: windows were measured against the old one."""
        return wall_was_set(&self.clocks, now, wall_ms)


@cython.final
cdef class Share:
    """The time that one owner's reads have taken since it was last made to wait."""

    @property
    def used_up(self):
        return self.spent_ns >= SHARE_NS


def _nothing(*_):
    """What a turn calls whose connection is gone."""


@cython.final
cdef class Turn:
    """The reading side of a connection.

    `rest(now, wall_ms, progress, unsent)` takes over where the hit path ends; `unsent` are bytes that the kernel did not
    take. `later()` is called where the owner's share is used up, `ended(error)` when the peer has closed, the socket
    failed (None), or an error was not expected. `passed` and `passed_too`
    are descriptors that go with the next replies, once (-1: none); then `given()` is called.
    """

    def __cinit__(self, int fd, Gate gate not None, Stream stream not None, Served served not None,
                  Share share not None, int owner, rest, later, ended):
        self.fd, self.gate, self.stream, self.served, self.owner = fd, gate, stream, served, owner
        self.share, self.rest, self.later, self.ended = share, rest, later, ended
        self.passed = self.passed_too = -1

    def close(self):
        """The connection is gone: call it no more, and do not hold it, which holds this turn."""
        self.rest = self.later = self.ended = _nothing

    def readable(self):
        """The kernel has bytes for us."""
        cdef Py_ssize_t n
        if self.share.spent_ns >= SHARE_NS and self.served.contested:
            self.later()
            return
        n = recv(self.fd, buffer, READ, MSG_DONTWAIT)
        if n > 0:
            self.turn(n)
        elif n == 0 or (errno != EAGAIN and errno != EINTR):
            self.ended(None)

    def again(self):
        """Go on with what the gate left in the stream, to bound its output."""
        self.turn(0)

    cdef int turn(self, Py_ssize_t size) except -1:
        cdef int64_t now = boottime()
        try:
            self.take(size, now)
        except Exception as error:      # a defect: it ends this connection and no other
            self.ended(error)
        self.share.spent_ns += boottime() - now
        return 0

    cdef int take(self, Py_ssize_t size, int64_t now) except -1:
        cdef int64_t wall_ms = unix_ms(CLOCK_REALTIME)
        cdef Stream s = self.stream
        cdef Py_ssize_t sent = 0
        cdef Py_ssize_t out
        # the clock was read after the bytes: what they ask was asked before the lease ends
        if load(self.gate.page.words + LEASE) < <uint64_t> now and self.served.holds is not None:
            if not self.served.holds():
                return 0
        if wall_was_set(&self.served.clocks, now, wall_ms):
            self.gate.page.clock_was_set()
        if self.served.owner != self.owner:
            self.served.owner, self.served.others_ns = self.owner, now
        out = self.gate.take(s, buffer, size, now, wall_ms)
        if out > 0:
            if self.passed < 0:
                sent = send(self.fd, self.gate.out.data, out, MSG_DONTWAIT | MSG_NOSIGNAL)
            else:
                sent = send_with(self.fd, self.gate.out.data, out, MSG_DONTWAIT | MSG_NOSIGNAL, self.passed,
                                 self.passed_too)
                self.passed = -1
                self.given()
            if sent < 0:
                sent = 0        # full or broken: whoever sends the rest finds out
        if sent < out or s.asks or s.more or s.lost or s.rest.size > 0 or self.partial or s.faults is not None:
            self.partial = s.rest.size > 0
            self.rest(now, wall_ms, out > 0, (<const char*> self.gate.out.data)[sent:out] if sent < out else b"")
        return 0
