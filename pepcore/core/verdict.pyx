"""The verdict: what is enforced. The one place where a permit is built.

Promises: `settle` permits only if the decision permits, is a real boolean, carries no fault, and every obligation
is well-formed, compiled, and discharged by the caller (`handles`) or by pepcore itself.
`read` takes a verdict body from the wire through the same function, and only in its one canonical form. Everything
else here builds denies.
Never: raises for a deny; lets Python code change a verdict or make one that permits (`Verdict()` is a deny).

INVARIANT: `permit = True` is written in `settle` and in no other place of the product.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from copy import deepcopy

import msgspec

from .cursor cimport le32, le64, put_le32, put_le64
from .page cimport STAMPS
from .values cimport MAX_DEPTH, Walk, mapping

from ..errors import BadRequest, Denied, Fault, NAMES, ObligationFault, PdpFault
from ..model import Obligation
from . import obligation


cdef enum:
    STAMP = 2                   # bytes of a slot


class _Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The variable part of a verdict body."""

    obligations: tuple[Obligation, ...] = ()
    policies: tuple[str, ...] = ()
    reason: str = ""


cdef object _read_payload = msgspec.msgpack.Decoder(_Payload).decode
cdef object _write_payload = msgspec.msgpack.Encoder(order="sorted").encode
cdef dict _names = NAMES


@cython.final
@cython.freelist(256)
cdef class Verdict:
    """The answer to one question. `bool(v)` is the answer; nothing in it can be changed.

    permit, reason, policies, obligations (those `understood` here run, even on a deny; each look gives a copy), error,
    cached, id (16 hex digits), expires (seconds on CLOCK_BOOTTIME, 0.0: not to be kept), boot and revision (how fresh
    it is: pass them as `min_revision` to ask for no older one).
    """

    def __cinit__(self):
        self.error = self.reason = ""
        self.policies = self.held = self.runs = ()
        self.stamps = b""

    def __bool__(self):
        return self.permit

    def __reduce__(self):
        raise TypeError("a verdict cannot be pickled: ask the question where the action happens")

    @property
    def obligations(self):
        return deepcopy(self.held)

    @property
    def understood(self):
        return deepcopy(self.runs)

    @property
    def id(self):
        return f"{self.number:016x}"

    @property
    def expires(self):
        return self.expires_ns / 1e9

    def apply(self, payload):
        """Discharge the obligations on `payload` and return the new payload; the input stays as it was.

        Raises Denied where the verdict is a deny (those `understood` run all the same, what they make is dropped), or
        where an obligation cannot be discharged on this payload: then the payload must not be released.
        """
        try:
            discharged = payload if self.program is None else self.program.run(payload)
        except ObligationFault as fault:
            if not self.permit:
                raise Denied(self) from fault
            raise Denied(deny(fault, number=self.number, boot=self.boot, revision=self.revision)) from fault
        if not self.permit:
            raise Denied(self)
        return discharged

    def __repr__(self):
        word = "permit" if self.permit else "deny"
        return f"<Verdict {word} {self.id} {self.error or self.reason or ', '.join(self.policies)}>"


def settle(permit, str reason, tuple policies, tuple obligations, handles, *, uint64_t number=0, uint64_t boot=0,
           uint64_t revision=0, int64_t expires_ns=0, bint cached=False, bytes stamps not None=b"",
           int64_t kept_ns=0):
    """Return the verdict on a decision. `handles` are the obligation types that the caller discharges.

    It hangs on `stamps` (slots of the page, u16 each), and a table of this process may keep it until `kept_ns`.

    Obligations that are understood are compiled, and can run, even where another one turns the permit into a deny
    (AuthZEN obligations profile, draft 1: such a permit "MUST be treated as a deny"). A deny stays a plain deny,
    whatever it asks for besides: there is no permit that could fall.
    """
    cdef Verdict v = Verdict.__new__(Verdict)
    v.reason, v.policies, v.held = reason, policies, obligations
    v.number, v.boot, v.revision, v.expires_ns, v.cached = number, boot, revision, expires_ns, cached
    v.stamps, v.kept_ns = stamps, kept_ns
    try:
        if obligations:
            v.runs = obligation.understood(obligations, handles)
            v.program = obligation.compile(v.runs)
        if permit is True:
            why = obligation.unhandled(obligations, handles) if obligations else ""
            if why:
                raise ObligationFault("", why)
            v.permit = True
        elif permit is not False:
            raise PdpFault("decision", f"is `{type(permit).__name__}`: it must be a boolean")
    except Fault as fault:
        v.fault, v.error, v.expires_ns = fault.code, named(fault), 0
        v.kept_ns = 0
    return v


cdef str named(fault):
    """The text of a fault behind its name, which a field of the same name is already."""
    name = _names[fault.code]
    return str(fault) if fault.field == name else f"{name}: {fault}"


def deny(fault, *, uint64_t number=0, uint64_t boot=0, uint64_t revision=0):
    """Return the deny that a fault (errors.Fault) stands for."""
    cdef Verdict v = Verdict.__new__(Verdict)
    v.fault, v.error = fault.code, named(fault).encode("utf-8", "replace").decode()
    v.number, v.boot, v.revision = number, boot, revision
    return v


cdef Verdict cached_copy(Verdict v):
    """The same verdict, marked as it is served from a cache. Only ever called with what `settle` returned."""
    cdef Verdict c = Verdict.__new__(Verdict)
    c.permit, c.cached, c.fault, c.error, c.reason = v.permit, True, v.fault, v.error, v.reason
    c.policies, c.held, c.runs, c.program = v.policies, v.held, v.runs, v.program
    c.number, c.boot, c.revision, c.expires_ns = v.number, v.boot, v.revision, v.expires_ns
    c.stamps, c.kept_ns = v.stamps, v.kept_ns
    return c


# ---- the wire --------------------------------------------------------------------------------------------------

cdef void write_fixed(unsigned char* at, bint permit, uint8_t fault, bint cached, uint8_t stamps,
                      uint32_t lifetime_ms, uint32_t keep_ms, uint32_t payload, uint64_t number, uint64_t boot,
                      uint64_t revision) noexcept nogil:
    """The fixed part of a verdict body (bindings/README.md, "verdict body"). `keep_ms` is cut to the lifetime."""
    at[0], at[1], at[2], at[3] = permit, fault, cached, stamps
    put_le32(at + 4, lifetime_ms)
    put_le32(at + 8, min(keep_ms, lifetime_ms))
    put_le32(at + 12, payload)
    put_le64(at + 16, number)
    put_le64(at + 24, boot)
    put_le64(at + 32, revision)


cdef bytes written(tuple obligations, tuple policies, str reason):
    cdef dict out = {}
    if obligations:
        out["obligations"] = obligations
    if policies:
        out["policies"] = policies
    if reason:
        out["reason"] = reason
    return _write_payload(out) if out else b""


def payload(Verdict v not None):
    """Return the variable part of the verdict's body, in canonical msgpack; nothing where there is nothing to say."""
    return written(v.held, v.policies, v.error or v.reason)


def body(Verdict v not None, bytes payload not None, int64_t now, int64_t limit_ms=-1, uint32_t keep_ms=0):
    """Return the verdict's body as sent. `limit_ms` bounds the lifetime told (the caller's own token), -1: not.

    A client may keep it for `keep_ms` at most, if the verdict may be kept at all.
    """
    cdef unsigned char fixed[VERDICT]
    cdef int64_t left = (v.expires_ns - now) // 1000000 if v.expires_ns > now else 0
    if 0 <= limit_ms < left:
        left = limit_ms
    write_fixed(fixed, v.permit, v.fault, v.cached, len(v.stamps) // STAMP, <uint32_t> min(left, 0xFFFFFFFF),
                keep_ms if v.kept_ns > now else 0, len(payload), v.number, v.boot, v.revision)
    return (<const char*> fixed)[:VERDICT] + payload + v.stamps


def stored_body(stored not None, *, int64_t now, uint64_t boot, int64_t limit_ms=-1, uint32_t keep_ms=0):
    """Return the body of what `Cache.get` found, for an answer that is not sent by the gate."""
    cdef unsigned char fixed[VERDICT]
    cdef bytes payload = stored.payload, stamps = stored.stamps
    cdef int64_t left = max((<int64_t> stored.expires - now) // 1000000, 0)
    if 0 <= limit_ms < left:
        left = limit_ms
    write_fixed(fixed, stored.permit, 0, True, len(stamps) // STAMP, <uint32_t> min(left, 0xFFFFFFFF),
                keep_ms if stored.kept else 0, len(payload), stored.id, boot, stored.revision)
    return (<const char*> fixed)[:VERDICT] + payload + stamps


cdef object content_of(bytes encoded):
    """The payload of a verdict body, which must be the one that `payload` writes (or an empty map)."""
    cdef Walk w
    if not encoded:
        return _Payload()
    w.c.at = <const unsigned char*> <const char*> encoded
    w.c.end = w.c.at + len(encoded)
    w.out, w.reason, w.depth, w.recode, w.limit, w.left = NULL, NULL, 0, False, MAX_DEPTH, len(encoded)
    if mapping(&w, 1) < 0:
        raise BadRequest("verdict", f"carries a payload that {w.reason.decode('ascii')}")
    try:
        content = _read_payload(encoded)
        if written(content.obligations, content.policies, content.reason) != (b"" if encoded == b"\x80" else encoded):
            raise ValueError("it is not in canonical form")
    except (ValueError, RecursionError) as error:
        raise BadRequest("verdict", f"carries a payload that cannot be read: {error}") from None
    return content


def read(bytes data not None, handles, int64_t now):
    """Return the verdict in a body that a daemon sent. Raises BadRequest where the body is malformed."""
    cdef const unsigned char* p = <const unsigned char*> <const char*> data
    cdef Py_ssize_t size = len(data)
    cdef uint32_t length, keep
    cdef int64_t lifetime
    cdef bytes stamps
    cdef Verdict v
    if size < VERDICT:
        raise BadRequest("verdict", "ends in the middle")
    length, lifetime, keep = le32(p + 12), le32(p + 4), le32(p + 8)
    if p[0] > 1 or p[2] > 1 or p[1] and (p[0] or p[1] not in _names):
        raise BadRequest("verdict", "has a permit, a fault or a flag that cannot be")
    if p[3] > STAMPS or size - VERDICT != <Py_ssize_t> length + STAMP * <Py_ssize_t> p[3]:
        raise BadRequest("verdict", "has a length that is not payload plus stamps")
    if keep > lifetime:
        raise BadRequest("verdict", "may be kept for longer than it stands")
    stamps = data[VERDICT + length:]
    content = content_of(data[VERDICT:VERDICT + length])
    if p[1]:
        v = Verdict.__new__(Verdict)
        v.fault, v.error, v.policies, v.held = p[1], content.reason, content.policies, content.obligations
        v.number, v.boot, v.revision, v.cached = le64(p + 16), le64(p + 24), le64(p + 32), p[2]
        return v
    return settle(
        p[0] == 1, content.reason, content.policies, content.obligations, handles, number=le64(p + 16),
        boot=le64(p + 24), revision=le64(p + 32), expires_ns=now + lifetime * 1000000 if lifetime else 0, cached=p[2],
        stamps=stamps, kept_ns=now + <int64_t> keep * 1000000 if keep else 0)
