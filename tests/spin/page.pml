/* The page: stamps, fills, joins, and the order in which a revoke is written (DESIGN, D3 and D4; invariants 2 and 3).

Property: a question asked after the acknowledged revoke of a tag of its answer is not served by an answer that was
computed before that revoke, whether it comes from the client's cache, the daemon's cache, or a flight that was
joined.

Modelled: one question, asked by two clients, by one three times, by the other once. Its answer hangs on A (its own
entity; slot 0 is another such) and on B (a tag that only the answer names); C belongs to others. An administrator
revokes any of them, or A and B at once, twice. The daemon is one thread: its events do not interleave with each
other, but a client may read the page between any two of its stores, and the PDP may decide at any time between being
asked and its answer's arrival. Up to three flights, release of the waiters one by one, with whatever may come
between; who is served by nothing is asked for once more, then denied. `pdp[t]` counts the changes that are active in
the PDP, an answer carries the counts that it saw, and a question those that were acknowledged when it was asked: so
the assertion compares ages, not verdicts. The record (between effect and acknowledgement) touches nothing here: it is
the gap between those two steps.

Left out: lease, boot and restart (lease.pml); a writer that dies (tear.pml); lifetimes; deadlines; batches, which are
judged by the same test when they are released; two tags on one slot (only ends more); a PDP that lags behind its own
revocation (for which `block` exists); the memory model: Spin's memory is sequentially consistent, and what is needed
of the real one is only that whoever sees a revision sees the slots stored before it (release, acquire), and that an
acknowledgement travels through the kernel.

WIDE: an answer of more than 32 slots, which hangs on the revision itself.
SHARED: both clients are threads of one process, with one cache under a lock.

Mutants: STAMP_BY_CLIENT STAMP_AFTER_ASKING NO_TEST_ON_ANSWER JOIN_ANY REVISION_BEFORE_SLOTS BUMP_BEFORE_COMMIT
REMEMBER_UNTESTED READ_REVISION_LAST; with SHARED: NO_LOCK.
Probes, each an assertion that has to fail, since what it marks does happen:
SEE_REMEMBERED SEE_DAEMON_HIT SEE_JOINED SEE_ASKED_AGAIN SEE_KEPT_OVER_ANOTHERS_REVOKE */

#define A 0
#define B 1
#define C 2
#define BOTH 3
#define NONE 3

#define CLIENTS 2
#ifndef QUESTIONS
#define QUESTIONS 3
#endif
#define REVOKES 2
#define FLIGHTS 3

#define QUEUED 1
#define WITH_PDP 2
#define DECIDED 3
#define RELEASING 4

/* the page, and what is outside of it */
byte revision;
byte slot[3];
byte pdp[2];
byte acked[2];

/* an answer: the revision that was read before the PDP was asked (or that it was found to stand at), and its age */
typedef Answer { byte at; byte a; byte b }

#ifdef SHARED
Answer kept;
bool is_kept;
bool locked;
#endif

/* the daemon */
Answer cached;
bool is_cached;
Answer said[FLIGHTS];
byte state[FLIGHTS];
byte waiters[FLIGHTS];
byte current = NONE;
bool again[CLIENTS];

chan ask = [CLIENTS] of { byte };
chan answers0 = [1] of { bool, byte, byte, byte };
chan answers1 = [1] of { bool, byte, byte, byte };
chan revoke = [0] of { byte };
chan revoked = [0] of { bit };

#ifdef WIDE
#define UNTOUCHED(x) (revision == (x))
#define OWN_UNTOUCHED(x) (revision == (x))
#else
#define UNTOUCHED(x) (revision == (x) || (slot[A] <= (x) && slot[B] <= (x)))
#define OWN_UNTOUCHED(x) (revision == (x) || slot[A] <= (x))
#endif

inline reply(c, permit, x) {
    if
    :: c == 0 -> answers0!permit, x.at, x.a, x.b
    :: else -> answers1!permit, x.at, x.a, x.b
    fi
}

/* a question that no cache answered joins a flight or starts one */
inline wait(c) {
    if
#ifdef JOIN_ANY
    :: current != NONE ->
#else
    :: current != NONE && (state[current] == QUEUED || OWN_UNTOUCHED(said[current].at)) ->
#endif
#ifdef SEE_JOINED
        assert(state[current] == QUEUED || revision == said[current].at);
#endif
        f = current
    :: else ->
        f = 0;
        do
        :: state[f] != 0 -> f++
        :: else -> break
        od;
        state[f] = QUEUED;
        current = f
    fi;
    waiters[f] = waiters[f] | (1 << c)
}

active proctype Daemon() {
    byte c, f, g, t, next;
    bool served;
end:
    do
    :: atomic { ask?c ->
        again[c] = false;
        if
        :: is_cached && UNTOUCHED(cached.at) ->
#ifdef SEE_DAEMON_HIT
            assert(false);
#endif
            cached.at = revision;
            reply(c, true, cached)
        :: else ->
            is_cached = false;
            wait(c)
        fi;
        c = 0; f = 0 }
    :: atomic { state[0] == QUEUED || state[1] == QUEUED || state[2] == QUEUED ->
        if
        :: state[0] == QUEUED -> f = 0
        :: state[1] == QUEUED -> f = 1
        :: state[2] == QUEUED -> f = 2
        fi;
        said[f].at = revision;
        state[f] = WITH_PDP;
        f = 0 }
    :: atomic { state[0] == DECIDED || state[1] == DECIDED || state[2] == DECIDED ->      /* the answer arrives */
        if
        :: state[0] == DECIDED -> f = 0
        :: state[1] == DECIDED -> f = 1
        :: state[2] == DECIDED -> f = 2
        fi;
        if
        :: current == f -> current = NONE
        :: else
        fi;
#ifdef STAMP_AFTER_ASKING
        said[f].at = revision;
#endif
#ifdef NO_TEST_ON_ANSWER
        if
        :: true ->
#else
        if
        :: UNTOUCHED(said[f].at) ->
#endif
            is_cached = true;
            cached.at = said[f].at;
            cached.a = said[f].a;
            cached.b = said[f].b
        :: else
        fi;
        state[f] = RELEASING;
        f = 0 }
    :: atomic { state[0] == RELEASING || state[1] == RELEASING || state[2] == RELEASING ->    /* one who waits */
        if
        :: state[0] == RELEASING -> g = 0
        :: state[1] == RELEASING -> g = 1
        :: state[2] == RELEASING -> g = 2
        fi;
        c = (waiters[g] & 1 -> 0 : 1);
        waiters[g] = waiters[g] & ~(1 << c);
        served = false;
#if defined(NO_TEST_ON_ANSWER) || defined(JOIN_ANY)
        if
        :: true ->
#else
        if
        :: UNTOUCHED(said[g].at) ->
#endif
            reply(c, true, said[g]);
            served = true
        :: else
        fi;
        if
        :: waiters[g] == 0 -> state[g] = 0; said[g].at = 0; said[g].a = 0; said[g].b = 0
        :: else
        fi;
        if
        :: served
        :: !served && again[c] -> reply(c, false, said[g])
        :: else ->
#ifdef SEE_ASKED_AGAIN
            assert(false);
#endif
            again[c] = true;
            wait(c)
        fi;
        served = false;
        c = 0; f = 0; g = 0 }
    :: revoke?t;
        next = revision + 1;
#ifdef REVISION_BEFORE_SLOTS
        revision = next;
#endif
        if
        :: t == BOTH -> slot[A] = next; slot[B] = next
        :: else -> slot[t] = next
        fi;
        revision = next;
        next = 0; t = 0;
        revoked!0
    od
}

/* the PDP decides as of one moment between being asked and its answer's arrival */
active proctype PDP() {
    byte f;
end:
    do
    :: atomic { state[0] == WITH_PDP || state[1] == WITH_PDP || state[2] == WITH_PDP ->
        if
        :: state[0] == WITH_PDP -> f = 0
        :: state[1] == WITH_PDP -> f = 1
        :: state[2] == WITH_PDP -> f = 2
        fi;
        said[f].a = pdp[A];
        said[f].b = pdp[B];
        state[f] = DECIDED;
        f = 0 }
    od
}

inline commit(t) {
    atomic {
        if
        :: t == BOTH -> pdp[A]++; pdp[B]++
        :: t == C
        :: else -> pdp[t]++
        fi
    }
}

active proctype Administrator() {
    byte t, n;
    do
    :: n < REVOKES ->
        n++;
        if
        :: t = A
        :: t = B
        :: t = C
        :: t = BOTH
        fi;
#ifndef BUMP_BEFORE_COMMIT
        commit(t);
#endif
        revoke!t;
#ifdef BUMP_BEFORE_COMMIT
        revoked?_;
        commit(t);
        atomic {
#else
        atomic { revoked?_;
#endif
            acked[A] = pdp[A];
            acked[B] = pdp[B] }
    :: else -> break
    od
}

#if defined(SHARED) && !defined(NO_LOCK)
#define LOCK atomic { !locked -> locked = true };
#define UNLOCK locked = false;
#else
#define LOCK
#define UNLOCK
#endif

inline serve(x, y) {
    assert(x >= asked_a && y >= asked_b)
}

/* pids: Daemon 0, PDP 1, Administrator 2, the clients after them */
active [CLIENTS] proctype Client() {
    byte n, r, asked_a, asked_b;
    Answer got;
    bool permit;
#ifndef SHARED
    Answer kept;
    bool is_kept;
#endif
    do
    :: n < (_pid == 3 -> QUESTIONS : 1) ->
        n++;
        d_step { asked_a = acked[A]; asked_b = acked[B] };
        LOCK
        if
        :: is_kept ->
            r = revision;
            if
            :: r == kept.at -> skip
            :: else ->
#ifndef REMEMBER_UNTESTED
#ifdef WIDE
                goto drop;
#else
                if
                :: slot[A] > kept.at -> goto drop
                :: else
                fi;
                if
                :: slot[B] > kept.at -> goto drop
                :: else
                fi;
#endif
#endif
#ifdef SEE_REMEMBERED
                assert(false);
#endif
#ifdef READ_REVISION_LAST
                r = revision;
#endif
                kept.at = r
            fi;
            d_step { serve(kept.a, kept.b) };
            UNLOCK
            goto done;
drop:       is_kept = false;
        :: else
        fi;
        UNLOCK
        ask!_pid - 3;
        if
        :: _pid == 3 -> answers0?permit, got.at, got.a, got.b
        :: else -> answers1?permit, got.at, got.a, got.b
        fi;
        if
        :: permit ->
            d_step { serve(got.a, got.b) };
            LOCK
#ifdef STAMP_BY_CLIENT
            got.at = revision;
#endif
#ifdef SEE_KEPT_OVER_ANOTHERS_REVOKE
            assert(slot[C] <= got.at || slot[A] > got.at || slot[B] > got.at);
#endif
#ifndef NO_TEST_ON_ANSWER
#ifdef WIDE
            if
            :: revision != got.at -> goto away
            :: else
            fi;
#else
            if
            :: slot[A] > got.at -> goto away
            :: else
            fi;
            if
            :: slot[B] > got.at -> goto away
            :: else
            fi;
#endif
#endif
            d_step { is_kept = true; kept.at = got.at; kept.a = got.a; kept.b = got.b };
away:       skip;
            UNLOCK
        :: else
        fi;
done:   skip;
        d_step { r = 0; asked_a = 0; asked_b = 0; permit = false; got.at = 0; got.a = 0; got.b = 0 }
    :: else -> break
    od
}
