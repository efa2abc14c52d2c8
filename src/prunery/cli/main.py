"""The way in and the ways out: 0 done, 1 a bug of ours, 2 a request refused, 130 stopped by the user."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from ..spec import Refused


def main(words: list[str] | None = None) -> None:
    """Run one command and exit."""
    given = sys.argv[1:] if words is None else words
    words = [w for w in given if w != "--debug"]
    if words == ["--version"]:
        print(f"prunery {version('prunery')}")
        sys.exit(0)
    sys.exit(guarded(lambda: _invoke(words), debug=len(words) < len(given)))


def _invoke(words: list[str]) -> int:
    from .commands import app

    code = app(args=words, prog_name="prunery", standalone_mode=False) or 0
    sys.stdout.flush()  # here, where a closed pipe or a full disk is still told in one line
    return code


def guarded(action: Callable[[], int], debug: bool = False) -> int:
    """The exit code of an action; its failure as one line on standard error."""
    try:
        return action()
    except BaseException as error:
        code, line = verdict(error)
        if debug and line and code != 130:
            traceback.print_exc()
        if line:
            print(f"prunery: {' '.join(line.split())}", file=sys.stderr)
        if isinstance(error, OSError):
            _unblock(sys.stdout)
        return code


def _unblock(stream: Any) -> None:
    """What cannot be written any more must not fail a second time when the interpreter ends."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def verdict(error: BaseException) -> tuple[int, str]:
    """Exit code and line for what went wrong."""
    if isinstance(error, Refused):
        return 2, str(error)
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return 0, ""  # whoever reads our output has seen enough
    if isinstance(error, SystemExit):
        return (error.code or 0, "") if isinstance(error.code, int | None) else (2, str(error.code))
    if type(error).__name__ in ("Stopped", "KeyboardInterrupt", "Abort"):
        text = str(error) or "stopped"
        return 130, f"{text}; the same command takes up from here"
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0)), ""
    if type(error).__name__ == "NoArgsIsHelpError":
        return 0, ""
    if hasattr(error, "format_message"):
        return 2, f"{error.format_message()} (prunery --help lists the commands, prunery COMMAND --help its options)"
    return _unexpected(error)


def _unexpected(error: BaseException) -> tuple[int, str]:
    """Memory and disks run out on anyone; the rest is ours to mend."""
    names = ("MemoryError", "OutOfMemoryError")
    if type(error).__name__ in names or "can't allocate memory" in str(error):
        return 2, "memory ran out; use a smaller batch (--batch, train.batch), a smaller network, or another --device"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES):
        where = error.filename or "standard output"
        return 2, f"{where} cannot be written: {error.strerror}; free space or choose a folder that can be written"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return 2, f"{str(error.filename)[:40]}... is too long for a file's name; expected a shorter one"
    return 1, f"unexpected {type(error).__name__}: {error}; this is a bug: run it again with --debug and report it"
