"""`pepcore completion`: scripts that complete commands, options and files in bash, zsh and fish.

Promises: the words come from the parsers themselves, so a new option is completed from the day it is there; the
scripts call nothing but the shell's own builtins: no Python runs when Tab is pressed.
"""

from __future__ import annotations

import argparse

from .parser import Parser, Usage, options_of
from .terminal import as_json, say

ABOUT = """Prints a script for bash, zsh or fish that completes commands, options and files."""

EXAMPLES = """  eval "$(pepcore completion bash)"
  pepcore completion zsh > "${fpath[1]}/_pepcore"
  pepcore completion fish > ~/.config/fish/completions/pepcore.fish"""

_WORDS = {"demo": ("revoke",), "policies": ("check",), "completion": ("bash", "zsh", "fish")}


def configure(parser: Parser) -> None:
    parser.usage = "pepcore completion bash|zsh|fish [--json]"
    parser.add_argument("words", nargs="*", metavar="SHELL", help=argparse.SUPPRESS)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    shells = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if len(options.words) != 1 or options.words[0] not in shells:
        raise Usage("completion", "name one shell: bash, zsh or fish")
    script = shells[options.words[0]]()
    say(as_json({"shell": options.words[0], "script": script}) if options.json else script)
    return 0


def _valued() -> str:
    """The options that take a value: behind them the shell completes files."""
    from . import COMMANDS, parser_of

    found = {
        name
        for command in COMMANDS
        for option in options_of(parser_of(command))
        if option.nargs != 0
        for name in option.option_strings
    }
    return "|".join(sorted(found))


def _words() -> dict[str, list[tuple[str, str]]]:
    """The options and fixed words of each command, with what they mean."""
    from . import COMMANDS, parser_of

    found = {}
    for command in COMMANDS:
        words = [(word, "") for word in _WORDS.get(command, ())]
        for option in options_of(parser_of(command)):
            words += [(name, str(option.help).split(";")[0].split(" (")[0]) for name in option.option_strings]
        found[command] = words
    return found


def _bash() -> str:
    from . import COMMANDS

    cases = "\n".join(
        f"    {command}) words='{' '.join(word for word, _ in words)}' ;;" for command, words in _words().items()
    )
    return f"""# pepcore completion for bash
_pepcore() {{
  local words current=${{COMP_WORDS[COMP_CWORD]}}
  case ${{COMP_WORDS[COMP_CWORD - 1]}} in
    {_valued()}) COMPREPLY=(); return ;;
  esac
  case ${{COMP_WORDS[1]}} in
{cases}
    *) words='' ;;
  esac
  if ((COMP_CWORD == 1)); then words='{" ".join(COMMANDS)} --help --version'; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _pepcore pepcore"""


def _zsh() -> str:
    from . import COMMANDS

    cases = "\n".join(
        f"    {command}) options=({' '.join(_quoted(f'{w}:{about}' if about else w) for w, about in words)}) ;;"
        for command, words in _words().items()
    )
    commands = " ".join(_quoted(f"{name}:{about}") for name, about in COMMANDS.items())
    return f"""#compdef pepcore
_pepcore() {{
  local -a commands options
  commands=({commands})
  if ((CURRENT == 2)); then
    _describe 'command' commands
    return
  fi
  case ${{words[2]}} in
{cases}
  esac
  _describe 'option' options
  _files
}}
if [[ ${{funcstack[1]}} == _pepcore ]]; then _pepcore "$@"; else compdef _pepcore pepcore; fi"""


def _fish() -> str:
    from . import COMMANDS

    lines = ["# pepcore completion for fish"]
    for name, about in COMMANDS.items():
        lines.append(f"complete -c pepcore -n __fish_use_subcommand -f -a {name} -d {_quoted(about)}")
    for command, words in _words().items():
        for word, about in words:
            seen = f"-n '__fish_seen_subcommand_from {command}'"
            short = f"-s {word[1:]}" if word.startswith("-") else f"-f -a {word}"
            flag = f"-l {word[2:]}" if word.startswith("--") else short
            lines.append(f"complete -c pepcore {seen} {flag}" + (f" -d {_quoted(about)}" if about else ""))
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "'\\''") + "'"
