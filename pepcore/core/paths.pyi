from typing import Final, final

MAX_DEPTH: Final[int]
MAX_STATES: Final[int]

@final
class Rule: ...

@final
class State: ...
