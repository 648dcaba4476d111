"""How a command reads its arguments, and the help that teaches it.

Promises: options may stand before, between and after the positional words; an option is never guessed from its
beginning, so a script that works today works with tomorrow's options; wrong arguments raise Usage, which says what
to do; every help ends with examples and the same table of exit codes.
Never: prints an error or ends the process itself; that is for `main`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

EXIT_CODES = """exit codes
  0  permit, or done              1  deny, or findings
  2  wrong arguments or config;   3  fault: no verdict could be had;
     nothing was asked               treat it as a deny
"""


class Usage(Exception):
    """The arguments are wrong: nothing was asked or done."""

    def __init__(self, command: str, reason: str) -> None:
        self.command = command
        super().__init__(reason)


class Parser(argparse.ArgumentParser):
    """The parser of one command."""

    def __init__(self, command: str, summary: str) -> None:
        self.command = command
        super().__init__(
            prog=f"pepcore {command}",
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--json", action="store_true", help="write JSON for programs, not text for people")

    def teach(self, run: Callable[[argparse.Namespace], int], about: str, examples: str) -> None:
        """Set what runs, what it does in a few sentences, and examples of it."""
        self.set_defaults(run=run)
        self.description = f"{self.description}\n\n{about.strip()}"
        self.epilog = f"examples\n{examples.rstrip()}\n\n{EXIT_CODES}"

    def error(self, message: str) -> NoReturn:
        raise Usage(self.command, message)


def each_once(values: list[str]) -> list[str]:
    """The values in order, without repeats."""
    return list(dict.fromkeys(values))


def whole(least: int, most: int, unit: str) -> Callable[[str], int]:
    """A reader of plain decimal numbers: `int` itself would take signs, spaces and `1_000`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"`{text}` is not a number of {unit} from {least} to {most}")
        return int(text)

    return read


def options_of(parser: Parser) -> list[Any]:
    """The options of a parser, for completion."""
    return [action for action in parser._actions if action.option_strings]
