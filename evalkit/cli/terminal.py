"""What all commands share: environment variables, verbosity, messages, tables."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import click

from evalkit.request_form import without_secrets
from evalkit.text import one_line

F = TypeVar("F", bound=Callable[..., Any])

_verbose = False


def dashes(name: str) -> str:
    """Underscore spellings of commands and flags are accepted."""
    return name.replace("_", "-")


class Flag(click.Option):
    """An option that can also be set as `EVALKIT_<FLAG>` (`EVALKIT_NO_<FLAG>` for its negative).

    `shown` of its spellings stand in the help, all where it is None; the others are earlier names.
    """

    def __init__(self, *args: Any, shown: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shown = shown
        if self.envvar is None:
            self.envvar = [_variable(name) for name in self.opts if name.startswith("--")]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Spellings and help, without earlier names."""
        current = copy.copy(self)
        current.opts, current.secondary_opts = self.opts[: self._shown], self.secondary_opts[: self._shown]
        return super(Flag, current).get_help_record(ctx)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The variable's text; a negative form that is set says false."""
        for name in self.secondary_opts:
            if os.environ.get(_variable(name), "").lower() in ("1", "true", "yes", "on"):
                return "false"
        return super().resolve_envvar_value(ctx)


def _variable(flag: str) -> str:
    return "EVALKIT_" + flag.lstrip("-").replace("-", "_").upper()


def flag(*names: str, **settings: Any) -> Callable[[F], F]:
    """`click.option` with `Flag`."""
    return click.option(*names, cls=Flag, **settings)


def verbosity(command: F) -> F:
    """Add `-q` and `-v`, which set how much is printed on stderr."""
    quiet = flag("-q", "--quiet", is_flag=True, expose_value=False, callback=_quiet, help="Only warnings.")
    verbose = flag(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_loud, help="Details and tracebacks."
    )
    return quiet(verbose(command))


def only_warnings() -> None:
    """Tell no more than warnings."""
    logging.getLogger().setLevel(logging.WARNING)


@contextmanager
def only_warnings_if(quiet: bool) -> Iterator[None]:
    """Tell no more than warnings during a block."""
    level = logging.getLogger().level
    if quiet:
        only_warnings()
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)


#: What the user typed after `evalkit`.
_arguments: list[str] = []


def remember(arguments: Sequence[str]) -> None:
    """Keep what the user typed."""
    _arguments[:] = arguments


def command_line() -> str:
    """What the user typed, quoted so that it pastes, without passwords."""
    return shlex.join(("evalkit", *map(_plain, _arguments)))


def _plain(argument: str) -> str:
    name, equals, value = argument.rpartition("extra_headers=")
    if equals:
        return name + without_secrets((equals + value,))[0]
    return re.sub(r"(?<=://)[^/@\s]*@", "", argument)


def _quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        only_warnings()


def _loud(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    global _verbose
    if value:
        _verbose = True
        logging.getLogger().setLevel(logging.INFO)
        for name in ("evalkit", "evalkit_tasks", "evalkit_models", "mini_internvl", "mini_internvl_train"):
            logging.getLogger(name).setLevel(logging.DEBUG)


class _Lines(logging.Handler):
    """One line a message on the current stderr, warnings marked."""

    def emit(self, record: logging.LogRecord) -> None:
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        with suppress(OSError, ValueError):  # nobody reads stderr any more
            click.echo(f"{mark}{one_line(record.getMessage())}", err=True)


def prepare_streams() -> None:
    """Log to stderr, and never fail on a character that a stream cannot encode."""
    global _verbose
    _verbose = False
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    root = logging.getLogger()
    if not any(isinstance(handler, _Lines) for handler in root.handlers):
        root.addHandler(_Lines())
    root.setLevel(logging.WARNING)
    for name in ("evalkit", "evalkit_tasks", "evalkit_models", "mini_internvl", "mini_internvl_train"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "httpcore", "urllib3", "filelock", "PIL", "huggingface_hub", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def fail(message: str, status: int) -> int:
    """Say one line on stderr, with the traceback where it was asked for; returns the status."""
    if _verbose and status != 130 and sys.exc_info()[0] is not None:
        with suppress(OSError, ValueError):
            click.echo(traceback.format_exc().rstrip(), err=True)
    text = " ".join(message.split())
    mark = "" if status == 130 else "error: "
    with suppress(OSError, ValueError):
        click.echo(f"evalkit: {mark}{one_line(text)}", err=True)
    return status


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM stop a command cleanly, also where it was started in the background."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def silence_stdout() -> None:
    """The reader of stdout has gone: keep the interpreter from failing on its last flush."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(content: Any) -> None:
    """The one JSON document on stdout; full precision, never NaN or Infinity."""
    click.echo(json.dumps(content, ensure_ascii=True, allow_nan=False, indent=1))
