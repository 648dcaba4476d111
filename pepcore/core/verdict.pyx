"""The verdict: what is enforced. The one place where a permit is built.

Promises: `settle` permits only if the decision permits, is a real boolean, carries no fault, and every obligation
is well-formed, compiled, and discharged by the caller (`handles`) or by pepcore itself.
`read` takes a verdict body from the wire through the same function. Everything else here builds denies.
Never: raises for a deny; lets Python code change a verdict or make one that permits (`Verdict()` is a deny).

INVARIANT: `permit = True` is written in `settle` and in no other place of the product.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

import msgspec

from .cursor cimport le32, le64, put_le32, put_le64

from ..errors import BadRequest, Denied, Fault, NAMES, ObligationFault
from ..model import Obligation
from . import obligation


class Payload(msgspec.Struct, frozen=True):
    """The variable part of a verdict body."""

    obligations: tuple[Obligation, ...] = ()
    policies: tuple[str, ...] = ()
    reason: str = ""


cdef object _read_payload = msgspec.msgpack.Decoder(Payload).decode
cdef object _write_payload = msgspec.msgpack.Encoder(order="sorted").encode
cdef dict _names = NAMES


@cython.final
@cython.freelist(256)
cdef class Verdict:
    """The answer to one question. `bool(v)` is the answer; nothing in it can be changed.

    permit, reason, policies, obligations, error, cached, id (16 hex digits), expires (seconds on CLOCK_BOOTTIME,
    0.0: not to be kept), boot and revision (how fresh it is: pass them as `min_revision` to ask for no older one).
    """

    def __cinit__(self):
        self.error = self.reason = ""
        self.policies = self.obligations = ()

    def __bool__(self):
        return self.permit

    def __reduce__(self):
        raise TypeError("a verdict cannot be pickled: ask the question where the action happens")

    @property
    def id(self):
        return f"{self.number:016x}"

    @property
    def expires(self):
        return self.expires_ns / 1e9

    def apply(self, payload):
        """Discharge the obligations on `payload` and return the new payload; the input stays as it was.

        Raises Denied where the verdict is a deny, or where an obligation cannot be discharged on this payload:
        then the payload must not be released.
        """
        if not self.permit:
            raise Denied(self)
        if self.program is None:
            return payload
        try:
            return self.program.run(payload)
        except ObligationFault as fault:
            raise Denied(deny(fault, number=self.number, boot=self.boot, revision=self.revision)) from fault

    def __repr__(self):
        word = "permit" if self.permit else "deny"
        return f"<Verdict {word} {self.id} {self.error or self.reason or ', '.join(self.policies)}>"


def settle(permit, str reason, tuple policies, tuple obligations, handles, *, uint64_t number=0, uint64_t boot=0,
           uint64_t revision=0, int64_t expires_ns=0, bint cached=False):
    """Return the verdict on a decision. `handles` are the obligation types that the caller discharges.

    Obligations that are understood are compiled, and can run, even where another one turns the permit into a deny
    (AuthZEN obligations profile, draft 1: such a permit "MUST be treated as a deny").
    """
    cdef Verdict v = Verdict.__new__(Verdict)
    v.reason, v.policies, v.obligations = reason, policies, obligations
    v.number, v.boot, v.revision, v.expires_ns, v.cached = number, boot, revision, expires_ns, cached
    try:
        if obligations:
            v.program = obligation.compile(obligation.understood(obligations, handles))
            why = obligation.unhandled(obligations, handles)
            if why:
                raise ObligationFault("", why)
        if permit is True:
            v.permit = True
    except Fault as fault:
        v.fault, v.error, v.expires_ns = fault.code, f"{_names[fault.code]}: {fault}", 0
    return v


def deny(fault, *, uint64_t number=0, uint64_t boot=0, uint64_t revision=0):
    """Return the deny that a fault (errors.Fault) stands for."""
    cdef Verdict v = Verdict.__new__(Verdict)
    v.fault, v.error = fault.code, f"{_names[fault.code]}: {fault}"
    v.number, v.boot, v.revision = number, boot, revision
    return v


cdef Verdict cached_copy(Verdict v):
    """The same verdict, marked as it is served from a cache. Only ever called with what `settle` returned."""
    cdef Verdict c = Verdict.__new__(Verdict)
    c.permit, c.cached, c.fault, c.error, c.reason = v.permit, True, v.fault, v.error, v.reason
    c.policies, c.obligations, c.program = v.policies, v.obligations, v.program
    c.number, c.boot, c.revision, c.expires_ns = v.number, v.boot, v.revision, v.expires_ns
    return c


# ---- the wire --------------------------------------------------------------------------------------------------

cdef void write_fixed(unsigned char* at, bint permit, uint8_t fault, bint cached, uint32_t lifetime_ms,
                      uint32_t payload, uint64_t number, uint64_t boot, uint64_t revision) noexcept nogil:
    """The fixed part of a verdict body (bindings/README.md, "verdict body"). No client may keep it yet, no stamps."""
    at[0], at[1], at[2], at[3] = permit, fault, cached, 0
    put_le32(at + 4, lifetime_ms)
    put_le32(at + 8, 0)
    put_le32(at + 12, payload)
    put_le64(at + 16, number)
    put_le64(at + 24, boot)
    put_le64(at + 32, revision)


def payload(Verdict v not None):
    """Return the variable part of the verdict's body, in canonical msgpack."""
    out = {}
    if v.obligations:
        out["obligations"] = v.obligations
    if v.policies:
        out["policies"] = v.policies
    if v.error or v.reason:
        out["reason"] = v.error or v.reason
    return _write_payload(out)


def body(Verdict v not None, bytes payload not None, int64_t now, int64_t limit_ms=-1):
    """Return the verdict's body as sent. `limit_ms` bounds the lifetime told (the caller's own token), -1: not."""
    cdef unsigned char fixed[VERDICT]
    cdef int64_t left = (v.expires_ns - now) // 1000000 if v.expires_ns > now else 0
    if 0 <= limit_ms < left:
        left = limit_ms
    write_fixed(fixed, v.permit, v.fault, v.cached, <uint32_t> min(left, 0xFFFFFFFF), len(payload), v.number,
                v.boot, v.revision)
    return (<const char*> fixed)[:VERDICT] + payload


def stored_body(tuple stored not None, *, int64_t now, uint64_t boot, uint64_t revision):
    """Return the body of what `Cache.get` found, for an answer that is not sent by the gate."""
    cdef unsigned char fixed[VERDICT]
    permit, number, expires, payload = stored
    write_fixed(fixed, permit, 0, True, <uint32_t> min((<int64_t> expires - now) // 1000000, 0xFFFFFFFF),
                len(payload), number, boot, revision)
    return (<const char*> fixed)[:VERDICT] + payload


def read(bytes data not None, handles, int64_t now):
    """Return the verdict in a body that a daemon sent. Raises BadRequest where the body is malformed."""
    cdef const unsigned char* p = <const unsigned char*> <const char*> data
    cdef Py_ssize_t size = len(data)
    cdef uint32_t length, lifetime
    cdef Verdict v
    if size < VERDICT:
        raise BadRequest("verdict", "ends in the middle")
    length, lifetime = le32(p + 12), le32(p + 4)
    if p[0] > 1 or p[2] > 1 or size - VERDICT != length + 12 * <Py_ssize_t> p[3] or p[1] not in _names and p[1]:
        raise BadRequest("verdict", "has a permit, a fault, a flag or a length that cannot be")
    try:
        content = _read_payload(data[VERDICT:VERDICT + length])
    except (ValueError, RecursionError) as error:
        raise BadRequest("verdict", f"carries a payload that cannot be read: {error}") from None
    if p[1]:
        v = Verdict.__new__(Verdict)
        v.fault, v.error, v.policies, v.obligations = p[1], content.reason, content.policies, content.obligations
        v.number, v.boot, v.revision, v.cached = le64(p + 16), le64(p + 24), le64(p + 32), p[2]
        return v
    return settle(p[0] == 1, content.reason, content.policies, content.obligations, handles, number=le64(p + 16), boot=le64(p + 24),
                  revision=le64(p + 32), expires_ns=now + lifetime * 1000000 if lifetime else 0, cached=p[2])
