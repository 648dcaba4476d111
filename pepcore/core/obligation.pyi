from collections.abc import Collection, Sequence
from typing import Final

from ..model import Obligation
from .payload import Headers as Headers
from .payload import Rows as Rows
from .program import Program
from .properties import MAX_FIELDS as MAX_FIELDS
from .properties import builtin as builtin
from .properties import check as check

DENIED: Final[frozenset[str]]
ENFORCER: Final[frozenset[str]]
MAX_OBLIGATIONS: Final[int]
PAYLOAD: Final[frozenset[str]]
SERVER: Final[frozenset[str]]

def compile(obligations: Sequence[Obligation]) -> Program: ...
def unhandled(obligations: Sequence[Obligation], handles: Collection[str]) -> str: ...
def understood(obligations: Sequence[Obligation], handles: Collection[str]) -> tuple[Obligation, ...]: ...
