"""The record: an append-only journal of decisions, revokes, leases, reloads and faults (design D10).

The order of the units is the way of an entry::

    entries    what may stand in the record, every text bounded        digest     attribute values as keyed digests
    frames     length, checksum, body                                  tree       the Merkle tree of RFC 6962
    segments   files of frames, recovery, seals                        growing    the one file that grows
    writer     one thread: group commit, three classes                 heads      signed heads of the tree
    reader     what others read, also while it is written              verify     what was changed, and where
    query      which entries                                           export     JSON lines, OpenTelemetry logs

Sans asyncio: the writer is a thread, and its callbacks run wherever its owner wants them.
"""
