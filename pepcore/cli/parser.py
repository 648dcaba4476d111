"""How a command reads its arguments, and the help that teaches it.

Promises: options may stand before, between and after the positional words; behind the first `--` no word is an
option; help is shown, with exit 0, only where it is asked for alone, so that no foreign word makes it look like a
permit; an option is never guessed from its beginning, so a script that works today works with tomorrow's options;
wrong arguments raise Usage, which says what to do; every help ends with examples and the same table of exit codes.
Never: prints an error or ends the process itself; that is for `main`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

EXIT_CODES = """exit codes
  0  permit, or done              1  deny, or findings
  2  wrong arguments or config;   3  fault: no verdict could be had;
     nothing was asked               treat it as a deny
"""


HELP_WORDS = ("-h", "--help")
HELP_ALONE = "asks for help only where it stands alone: put `--` before words that are no options"


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
            add_help=False,
        )
        self.add_argument(*HELP_WORDS, action=_HelpAmongOthers, nargs=0, help="show this help, where it stands alone")
        self.add_argument("--json", action="store_true", help="write JSON for programs, not text for people")

    def teach(self, run: Callable[[argparse.Namespace], int], about: str, examples: str) -> None:
        """Set what runs, what it does in a few sentences, and examples of it."""
        self.set_defaults(run=run)
        self.description = f"{self.description}\n\n{about.strip()}"
        self.epilog = f"examples\n{examples.rstrip()}\n\n{EXIT_CODES}"

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """What these words say. Raises Usage."""
        before, behind = self._apart(words)
        options = self.parse_intermixed_args(before)
        if behind and not hasattr(options, "words"):
            raise Usage(self.command, f"`{behind[0]}` is one word too many: this command takes options only")
        if behind:
            options.words = [*options.words, *behind]
        return options

    def _apart(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """The words before the first `--`, each option in one word with its value, and the words behind it.

        argparse takes a value that starts with `-` for an option, and reads what is behind `--` a second time, as
        options: a foreign word could then choose the socket.
        """
        valued = {name for option in options_of(self) if option.nargs is None for name in option.option_strings}
        before: list[str] = []
        left = iter(words)
        for word in left:
            if word == "--":
                break
            if word in valued and (value := next(left, None)) is not None:
                if value == "--":  # an empty variable in a script, no name: what is behind it must stay no option
                    raise Usage(self.command, f"`{word}` needs a value")
                word = f"{word}={value}"
            if word.endswith("=--") and word[:-3] in valued:  # argparse would make a list of it
                raise Usage(self.command, f"`{word[:-3]}` cannot be `--`")
            before.append(word)
        return before, list(left)

    def error(self, message: str) -> NoReturn:
        raise Usage(self.command, message)


class _HelpAmongOthers(argparse.Action):
    """The words that ask for help, met where they do not stand alone."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: object, option_string: str | None = None
    ) -> NoReturn:
        parser.error(f"`{option_string}` {HELP_ALONE}")


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
