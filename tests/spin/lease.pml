/* The lease: daemons that are stopped, continued, killed, replaced, in time (DESIGN, D3; invariants 2, 4 and 17).

Property: a question asked after an acknowledged revoke is not served by an answer that was computed before it, by any
thread of the client: not from the cache over a page whose daemon is gone, not by a daemon that has a successor.

Modelled: an old daemon and a new one, each with a page of its own. Any number of ticks may pass between any two
steps: nothing has to be in time for this to be safe. The old daemon may be stopped, continued and killed at any
moment. The lock is free once it is dead. A new daemon acknowledges nothing until 2 L after it took the lock (the old
one took it long ago). One client process with two threads, one cache, one page at a time, under a lock: a hit (clock,
lease, page), a question over the socket of the daemon whose page the process has, an answer that is read when that
daemon is long dead and the other thread has the page of the new one already.
HAND_OVER: the old daemon is neither stopped nor killed, but ends the thread that renews its lease, zeroes the lease,
stops answering, passes the lock on and ends; its successor does not wait.
REMOVED: somebody removes the lock file at any moment, so that a new daemon can lock another one while the old one lives,
is stopped, goes on. Each renewal reads the clock, looks whether the file is there, then stores; the old daemon answers
while its lease lasts or after a look, and looks before it acknowledges. Clients that it does not answer go to the new
one, administrators come to either; one revoke, and nobody is killed.
AHEAD=n, BEHIND=n: the client's clock (another time namespace) is ahead or behind by n ticks. Ahead only ends more.
Behind by less than L is covered by the 2 L. Behind by L or more it does not hold: a page that nobody renews any more
looks alive for L, n ticks after its end (tested as BEHIND=3). So there must be no cache where the clocks differ.

Merged, since what lies between promises less or is in page.pml: the words of the page; a question and its answer by
the daemon (the answer may lie unread for long); the PDP's change and the effect of its revoke; asking, the lock and
the clock. The new daemon stays, so its page is taken to be live always.
Left out: fills and joins, several slots (page.pml); what readers of a torn page do (tear.pml); a third daemon; a client
restored from a checkpoint, whose copy of the page stands still together with its clock.

Mutants: NO_FENCING_LOCK ACK_INSIDE_OLD_LEASE NO_LEASE SAME_BOOT STORE_OVER_BOOTS; with HAND_OVER: HAND_OVER_ANSWERING
RENEWER_NOT_JOINED LEASE_NOT_ZEROED; with REMOVED: NO_LOOK LOOK_BEFORE_CLOCK ANSWERS_WITHOUT_LOOK ACKS_WITHOUT_LOOK; and
BEHIND=3.
Probes, each an assertion that has to fail: SEE_LAPSE SEE_HIT_ON_NEW_PAGE SEE_RENEWED_HIT SEE_LATE_ANSWER; with REMOVED:
SEE_HIT_BESIDE */

#ifndef BEHIND
#define BEHIND 0
#endif
#ifndef AHEAD
#define AHEAD 0
#endif
#define L 2
#define START (BEHIND + 4)
#define END (START + 2 * L + 1)
#define QUESTIONS(c) (c == 0 -> 2 : 1)
#ifdef REMOVED
#define REVOKES 1
#else
#define REVOKES 2
#endif

#define OLD 0
#define NEW 1

byte now = START;
byte pdp, acked;

/* the pages, by daemon; the lease is the old one's */
byte lease = START + L;
byte revision[2], slot[2];

/* the daemons; `to_tell`: the age of what took effect and is not acknowledged yet */
bool new_is_up, stopped, dead, closing, joined, handed_over;
byte to_tell[2];
byte taken_at;
#if defined(HAND_OVER) || defined(REMOVED)
bool is_cached;
byte cached_at, cached_pdp;
#endif

#define OLD_RUNS (!stopped && !dead)
#ifdef REMOVED
bool removed, seen;
#ifdef ACKS_WITHOUT_LOOK
#define OLD_MAY_ACKNOWLEDGE true
#else
#define OLD_MAY_ACKNOWLEDGE (!removed)
#endif
#else
#define OLD_MAY_ACKNOWLEDGE true
#endif
#ifdef HAND_OVER_ANSWERING
#define OLD_ANSWERS OLD_RUNS
#elif defined(ANSWERS_WITHOUT_LOOK)
#define OLD_ANSWERS (OLD_RUNS && !seen)
#elif defined(REMOVED)
#define OLD_ANSWERS (OLD_RUNS && (lease >= now || !removed))
#else
#define OLD_ANSWERS (OLD_RUNS && !handed_over)
#endif

/* the client's process */
byte page_of;
bool is_kept, locked;
byte kept_at, kept_pdp;

#ifdef ACK_INSIDE_OLD_LEASE
#define MAY_ACKNOWLEDGE true
#else
#define MAY_ACKNOWLEDGE (handed_over || now >= taken_at + 2 * L)
#endif

inline acknowledge(d) {
    acked = (to_tell[d] > acked -> to_tell[d] : acked);
    to_tell[d] = 0
}

active proctype Old() {
end:
    do
    :: atomic { OLD_RUNS && to_tell[OLD] && OLD_MAY_ACKNOWLEDGE -> acknowledge(OLD) }
#ifdef HAND_OVER
    :: atomic { OLD_RUNS && !closing && !to_tell[OLD] -> closing = true };
#ifndef RENEWER_NOT_JOINED
end2:   joined;
#endif
#ifndef LEASE_NOT_ZEROED
        lease = 0;
#endif
        handed_over = true;
        dead = true;
        break
#endif
    od
}

active proctype New() {
end:
#ifdef NO_FENCING_LOCK
    atomic { new_is_up = true; taken_at = now };
#elif defined(REMOVED)
    atomic { removed -> new_is_up = true; taken_at = now };
#else
    atomic { dead || handed_over -> new_is_up = true; taken_at = now };
#endif
end2:
    do
    :: atomic { to_tell[NEW] && MAY_ACKNOWLEDGE -> acknowledge(NEW) }
    od
}

/* the old daemon's thread; being stopped between reading the clock and storing only makes the deadline earlier */
active proctype Renewer() {
#if defined(HAND_OVER) || defined(REMOVED)
    byte t;
#endif
end:
    do
#ifdef HAND_OVER
    :: atomic { OLD_RUNS && !closing && lease != now + L -> t = now };
end2:   atomic { OLD_RUNS -> lease = t + L; t = 0 }
    :: atomic { OLD_RUNS && closing -> joined = true; break }
#elif defined(REMOVED)
#ifdef NO_LOOK
    :: atomic { OLD_RUNS && lease != now + L -> t = now };
#else
    :: atomic { OLD_RUNS && removed -> seen = true; lease = 0; break }
    :: atomic { OLD_RUNS && !removed && lease != now + L -> t = now };
#endif
#ifdef LOOK_BEFORE_CLOCK
end2:   atomic { OLD_RUNS -> lease = now + L; t = 0 }
#else
end2:   atomic { OLD_RUNS -> lease = t + L; t = 0 }
#endif
#else
    :: atomic { OLD_RUNS && lease != now + L -> lease = now + L }
#endif
    od
}

active proctype Clock() {
    do
    :: now < END -> now++
    :: else -> break
    od
}

#ifndef HAND_OVER
active proctype Signals() {
    if
    :: stopped = true;
        if
        :: stopped = false
        :: skip
        fi
    :: skip
    fi;
#ifndef REMOVED
    if
    :: dead = true
    :: skip
    fi
#endif
}
#endif

#ifdef REMOVED
active proctype Cleaner() {
    removed = true
}
#endif

/* revokes at the daemon to which the socket's path leads */
active proctype Administrator() {
    byte n;
end:
    do
    :: atomic { n < REVOKES && (new_is_up || (OLD_RUNS && !closing)) ->
        n++;
        pdp++;
        if
        :: new_is_up -> slot[NEW] = revision[NEW] + 1; revision[NEW]++; to_tell[NEW] = pdp
#ifdef REMOVED
        :: OLD_RUNS && !seen -> slot[OLD] = revision[OLD] + 1; revision[OLD]++; to_tell[OLD] = pdp
        :: !new_is_up && !(OLD_RUNS && !seen) -> skip
#else
        :: else -> slot[OLD] = revision[OLD] + 1; revision[OLD]++; to_tell[OLD] = pdp
#endif
        fi }
    od
}

active [2] proctype Thread() {
    byte n, asked, t, by, at, saw, c;
    c = (_pid & 1);
    do
    :: atomic { n < QUESTIONS(c) && !locked ->
        n++;
        asked = acked;
        locked = true;
        if
        :: !is_kept -> goto miss
        :: else -> t = now + AHEAD - BEHIND
        fi };
#ifndef NO_LEASE
        atomic {
            if
            :: page_of == OLD && !(lease >= t && lease - t <= L) ->
#ifdef SEE_LAPSE
                assert(false);
#endif
                goto miss
            :: else
            fi };
#endif
        atomic {
            if
            :: revision[page_of] != kept_at && slot[page_of] > kept_at ->
                is_kept = false; kept_at = 0; kept_pdp = 0;
                goto miss
            :: else -> kept_at = revision[page_of]
            fi;
#ifdef SEE_HIT_ON_NEW_PAGE
            assert(page_of == OLD);
#endif
#ifdef SEE_RENEWED_HIT
            assert(page_of == NEW || t <= START + L);
#endif
#ifdef SEE_HIT_BESIDE
            assert(page_of == NEW || !new_is_up);
#endif
            assert(kept_pdp >= asked);
            locked = false;
            goto done };
miss:   atomic {
            t = 0;
            if
#ifdef REMOVED
            :: !OLD_ANSWERS && page_of == OLD && new_is_up ->
#else
            :: dead && page_of == OLD && new_is_up ->
#endif
                page_of = NEW;
#ifndef SAME_BOOT
                is_kept = false; kept_at = 0; kept_pdp = 0
#endif
            :: else
            fi;
            locked = false;
            by = page_of;
            if
            :: by == OLD && !OLD_ANSWERS -> goto done        /* nobody answers: a deny */
            :: by == NEW -> at = revision[NEW]; saw = pdp
            :: else ->
#if defined(HAND_OVER) || defined(REMOVED)
                if
                :: is_cached && (cached_at == revision[OLD] || slot[OLD] <= cached_at) -> cached_at = revision[OLD]
                :: else -> is_cached = true; cached_at = revision[OLD]; cached_pdp = pdp
                fi;
                at = cached_at; saw = cached_pdp
#else
                at = revision[OLD]; saw = pdp
#endif
            fi;
            assert(saw >= asked) };
        atomic { !locked ->                     /* later: the answer is read */
#ifdef SEE_LATE_ANSWER
            assert(by == page_of);
#endif
            if
#if defined(STORE_OVER_BOOTS) || defined(SAME_BOOT)
            :: slot[page_of] <= at -> is_kept = true; kept_at = at; kept_pdp = saw
#else
            :: by == page_of && slot[page_of] <= at -> is_kept = true; kept_at = at; kept_pdp = saw
#endif
            :: else
            fi };
done:   atomic { asked = 0; t = 0; by = 0; at = 0; saw = 0 }
    :: atomic { n == QUESTIONS(c) -> break }
    od
}
