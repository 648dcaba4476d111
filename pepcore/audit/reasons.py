"""What the record keeps of why the PDP failed, or a notifier: which policy or obligation, and the kind of its error.

Promises: no value of an attribute, from whatever the engine quoted: a text of the engine is kept only where it fits one
of the sentences here, word for word; of all others there is the part before what may quote something.
Never: touches what policies or this product say themselves of a decision; changes what whoever asked is told.
"""

from __future__ import annotations

import re

LEFT_OUT = "(what failed is left out: it may quote an attribute)"
_policy = re.compile(r"((?:[a-z]+: )?policy `[^`]*` \((?:permit|forbid)\) failed): (.*)", re.DOTALL)
_kinds = tuple(
    (re.compile(pattern, re.DOTALL), kept)
    for pattern, kept in (
        (r"(type error: expected [a-z]+, got [a-z]+)", r"\1"),
        (r"type error: .*", "type error"),
        (r"record does not have the attribute `([A-Za-z_][A-Za-z0-9_]*)`", r"record does not have the attribute `\1`"),
        (r".* does not have the attribute `([A-Za-z_][A-Za-z0-9_]*)`", r"an entity does not have the attribute `\1`"),
        (r"(error while evaluating `[a-z]+` extension function).*", r"\1"),
        (r"(integer overflow).*", r"\1"),
    )
)
_ours = re.compile(
    r"((?:pdp: )?(?:properties: )?(?:the worker that evaluated this question ended|this worker has no policies|"
    r"no decision came|the evaluation was interrupted|the PDP raised|the engine refuses these as an entity|"
    r"the question cannot be decided|cedar cannot evaluate this question|cedar reports an error of no policy))(.*)",
    re.DOTALL,
)


_meanings = re.compile(r"(?:pdp: )?the obligation id `.*` has two meanings; .*", re.DOTALL)
"""That one is of the policies' words alone."""
_raised = re.compile(r"(.*?` failed: \w{0,64}).*", re.DOTALL)


def raised(text: str) -> str:
    """What is kept of the text of a fault of an obligation: an exception of the host's notifier says what it likes."""
    found = _raised.fullmatch(text)
    return found[1] if found else text


def without_values(text: str) -> str:
    """What is kept of the text of a fault of the PDP."""
    if found := _policy.fullmatch(text):
        for pattern, kept in _kinds:
            if kind := pattern.fullmatch(found[2]):
                return f"{found[1]}: {kind.expand(kept)}"
        return f"{found[1]} {LEFT_OUT}"
    if _meanings.fullmatch(text):
        return text
    if found := _ours.fullmatch(text):
        return f"{found[1]} {LEFT_OUT}" if found[2] else text
    return LEFT_OUT if text else ""
