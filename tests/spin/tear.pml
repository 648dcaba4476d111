/* A writer that dies or is stopped between two stores of a revoke: nobody hangs, nothing wrong is admitted (DESIGN,
D3).

Modelled: a writer that revokes A and B at once, twice, and is killed between any two of its stores, or never goes on.
Two readers, each with a cache of one answer that hangs on both, read the page word by word, before and after. A miss
is answered by the writer's process only between two revokes, else denied. Readers ignore the lease, which would only
end more. Hanging is an assertion, too: where nothing can move any more, every reader has ended.
Left out: what comes after the death (lease.pml), fills that cross a revoke (page.pml).

Mutants: SEQLOCK (a sequence that is odd during a write, as in SELinux's status page; readers wait until it is even),
ACKNOWLEDGE_FIRST (the acknowledgement before the stores).
Probes, each an assertion that has to fail: SEE_TORN (a reader meets a slot beyond the revision) SEE_HIT_AFTER_DEATH */

#define A 0
#define B 1
#define READERS 2
#define QUESTIONS 3
#define REVOKES 2

byte revision, slot[2];
byte sequence;
byte pdp, acked, ended;
bool writing, dead;

/* a step of the writer, unless it was killed or stopped for good */
#define STEP(x) atomic { if :: dead -> goto out :: else -> x fi }

active proctype Writer() {
    byte n, next;
    do
    :: n < REVOKES ->
        n++;
        STEP(writing = true; pdp++);
        STEP(next = revision + 1);
#ifdef ACKNOWLEDGE_FIRST
        STEP(acked = pdp);
#endif
#ifdef SEQLOCK
        STEP(sequence++);
#endif
        STEP(slot[A] = next);
        STEP(slot[B] = next);
        STEP(revision = next);
#ifdef SEQLOCK
        STEP(sequence++);
#endif
        STEP(acked = pdp);
        STEP(writing = false)
    :: else -> break
    od;
out:
    skip
}

active proctype Killer() {
    if
    :: dead = true
    :: skip
    fi
}

active [READERS] proctype Reader() {
    byte n, asked, r, at, age;
    bool kept = true;                           /* an answer from before any revoke */
    do
    :: n < QUESTIONS ->
        d_step { n++; asked = acked };
        if
        :: kept ->
#ifdef SEQLOCK
            sequence % 2 == 0;
#endif
            r = revision;
            if
            :: r != at ->
#ifdef SEE_TORN
                assert(slot[A] <= revision);
#endif
                if
                :: slot[A] > at -> goto miss
                :: else
                fi;
                if
                :: slot[B] > at -> goto miss
                :: else
                fi;
                at = r
            :: else
            fi;
#ifdef SEE_HIT_AFTER_DEATH
            assert(!dead || !writing);
#endif
            assert(age >= asked);
            goto done
        :: else
        fi;
miss:   kept = false;
        if
        :: d_step { !dead && !writing -> at = revision; age = pdp; kept = true }
        :: true                                 /* no answer in time: denied */
        fi;
done:   asked = 0
    :: else -> break
    od;
    ended++
}

active proctype Watcher() {
end:
    timeout -> assert(ended == READERS)
}
