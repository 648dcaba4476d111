"""The command line: `pepcore COMMAND ...`.

Promises: one table of exit codes for every command (0 permit or ok, 1 deny or findings, 2 usage, 3 fault); only
the module of the command that runs is imported, so that `pepcore check` starts fast; every failure is one line on
standard error that says what to do, never a traceback; an answer that could not be written is a fault, and what went
wrong with standard error changes no exit code.
Never: decides. A command that cannot learn the verdict exits 3, which callers treat as a deny.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

from .parser import EXIT_CODES, HELP_ALONE, HELP_WORDS, Parser, Usage

COMMANDS = {
    "serve": "run the daemon",
    "check": "ask one question, or many as JSON lines",
    "explain": "tell why a question is decided as it is",
    "revoke": "end cached answers about a subject, a resource or a tag, everywhere on this host",
    "block": "deny a subject at once, whatever the policies say",
    "unblock": "lift a block",
    "blocks": "list who is blocked, why, and how long",
    "leases": "list the permits that are held",
    "end": "end one lease",
    "policies": "check a policy set before it goes live",
    "stats": "show what a running daemon has counted",
    "audit": "read, search, test and export the record of decisions",
    "top": "watch what a running daemon does right now",
    "replay": "decide the recorded questions by other policies, and show what changes",
    "bench": "measure this machine against the targets",
    "demo": "watch a small company's services, jobs and agents being decided",
    "completion": "print a completion script for bash, zsh or fish",
}

HELP = f"""usage: pepcore COMMAND [arguments]
       pepcore COMMAND --help
       pepcore --help | --version

One enforcement core per host: services, CI jobs, agents and databases ask it before they act.

commands
{chr(10).join(f"  {name:<11} {summary}" for name, summary in COMMANDS.items())}

start here
  pepcore demo
  pepcore demo revoke                            # watch a block end cached permits
  pepcore serve --policies ./policies --entities entities.json
  pepcore check User::alice read Document::roadmap && cat roadmap
  pepcore block Agent::helpdesk --for 30m --reason "ticket 4711"
  pepcore check -- "$subject" read "$document"   # words that come from elsewhere go behind `--`

{EXIT_CODES}
environment
  PEPCORE_SOCKET  where the daemon listens; else $XDG_RUNTIME_DIR/pepcore/pepcore.sock or /run/pepcore/pepcore.sock
  PEPCORE_CONFIG  the `pepcore.toml` that `serve` reads where --config is not given
  NO_COLOR        set to anything: no colours

Every command takes --json. `pep check` asks the same question from C, in milliseconds, for scripts and hooks.
"""

OK, FINDINGS, USAGE, FAULT = 0, 1, 2, 3


def parser_of(command: str) -> Parser:
    """The parser of one command. Imports its module and no other."""
    parser = Parser(command, COMMANDS[command])
    importlib.import_module(f".{command}", __name__).configure(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _open_missing_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
        _written()
    except (BrokenPipeError, KeyboardInterrupt):  # whoever reads the answer did not get it
        code = FAULT
    except Exception as error:
        code = _failed(error)
    _settle_streams()
    return code


def _open_missing_streams() -> None:
    """Give a standard stream that was closed when we were started a file, so that no other takes its number.

    Standard output gets one that cannot be written: an answer that nobody can read is a fault. `sys.stdin` stays None.
    """
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:  # Python's own sign; the lowest free number is the missing one
            number = os.open(os.devnull, flags)
            os.set_inheritable(number, True)  # as the standard streams are
            if name != "stdin":
                stream = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)


def _written() -> None:
    """See that the whole answer has left this process. Raises OSError."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"standard output cannot be written ({error.strerror}): send it to a file or a pipe") from None


def _settle_streams() -> None:
    """Leave nothing for the interpreter to flush at exit: where that fails, it exits with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(words: list[str]) -> int:
    for n, word in enumerate(words, 1):
        if not _is_text(word):
            raise Usage("", f"argument {n} is not valid UTF-8: write it in UTF-8")
    if not words:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(HELP)
        return USAGE
    command, rest = words[0], words[1:]
    if rest and command in (*HELP_WORDS, "help"):
        raise Usage("", f"`{command}` {HELP_ALONE}")
    if command in (*HELP_WORDS, "help"):
        sys.stdout.write(HELP)
        return OK
    if command in ("-V", "--version"):
        if rest:
            raise Usage("", f"`{command}` stands alone")
        from ..version import VERSION

        sys.stdout.write(f"pepcore {VERSION}\n")
        return OK
    if command not in COMMANDS:
        raise Usage("", f"`{command}` is not a command: choose one of {', '.join(COMMANDS)}")
    parser = parser_of(command)
    if len(rest) == 1 and rest[0] in HELP_WORDS:
        parser.print_help()
        return OK
    options = parser.read(rest)
    try:
        return int(options.run(options))
    except Exception as error:
        if not options.json:
            raise
        return _failed_as_json(error)


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in word


def _failed_as_json(error: Exception) -> int:
    """A fault on standard output, for a program that reads it. Raises what is none."""
    from ..errors import NAMES, Fault
    from .terminal import as_json, say

    if not isinstance(error, Fault):
        raise error
    say(as_json({"fault": NAMES.get(error.code, "fault"), "error": str(error)}))
    return FAULT


def _failed(error: Exception) -> int:
    """Say what went wrong in one line, and return the exit code for it."""
    from ..errors import ConfigError, Fault
    from .terminal import plain

    if isinstance(error, Usage):
        name = f"pepcore {error.command}".rstrip()
        return _complain(USAGE, f"{plain(str(error))}\ntry `{name} --help`")
    if isinstance(error, ConfigError):
        return _complain(USAGE, "\npepcore: ".join(plain(line) for line in str(error).split("\n")))
    kind = "" if isinstance(error, Fault | OSError) else f"{type(error).__name__}: "
    return _complain(FAULT, f"fault: {kind}{plain(str(error))}")


def _complain(code: int, text: str) -> int:
    """Say it on standard error if that can be written, and return the code."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"pepcore: {text}\n")
    return code
