"""Entry point: finds the command; an error becomes one line and an exit status."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from evalkit.cli import terminal
from evalkit.errors import EvalkitError, UsageError
from evalkit.installation import VERSION, fix_for

#: What `evalkit list` lists: words that people type as commands.
_LISTS = ("tasks", "models", "suites", "runs")
#: Command name to `module:object` and the line in `evalkit --help`. Nothing is imported before it is called.
#: The variable by which a shell asks for completions.
COMPLETION = "_EVALKIT_COMPLETE"

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("evalkit.cli.run:run", "Generate answers and score them: the main job."),
    "score": ("evalkit.cli.stored_runs:score", "Score stored responses again, without a model."),
    "reproduce": ("evalkit.cli.stored_runs:reproduce", "Run a stored run again, and compare the answers."),
    "compare": ("evalkit.cli.compare:compare", "Paired comparison of two runs, or of two models' runs."),
    "check": ("evalkit.cli.compare:check", "Run, compare with the baseline, pass or fail (for CI)."),
    "baseline": ("evalkit.cli.compare:baseline", "Save, list and show baselines."),
    "plan": ("evalkit.cli.plan:plan", "How many samples it takes to detect a difference."),
    "history": ("evalkit.cli.plan:history", "A model's scores over its checkpoints."),
    "list": ("evalkit.cli.list:list_command", "List tasks, models, suites or runs."),
    "show": ("evalkit.cli.stored_runs:show", "Show a run's scores, or its samples."),
    "data": ("evalkit.cli.data:data", "Where a task's files come from, and whether they are complete."),
    "export": ("evalkit.cli.export:export", "Write a benchmark's submission file, or its questions."),
    "push": ("evalkit.cli.push:push", "Publish a checkpoint or results on the Hugging Face Hub."),
    "train": ("mini_internvl_train.cli:train", "Fine-tune, merge and convert."),
    "leaderboard": ("evalkit_leaderboard.cli:leaderboard", "Start the leaderboard."),
    "completion": ("evalkit.cli.completion:completion", "Print the completion of bash, zsh or fish."),
    "doctor": ("evalkit.cli.doctor:doctor", "What works on this machine, and how to fix what does not."),
}


class LazyGroup(click.Group):
    """Imports a command when it is called; names the nearest one if it is unknown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of their use."""
        return list(COMMANDS)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands from the table, importing nothing; flags as click does."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        place, _ = COMMANDS[cmd_name]
        module_name, _, attribute = place.partition(":")
        try:
            command = getattr(import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            raise _unavailable(cmd_name, module_name, error) from error
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest names for an unknown one."""
        name = args[0].replace("_", "-") if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            lists = [f"list {name}"] if name in _LISTS else []
            near = lists or difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.5)
            hint = f" (nearest: {', '.join(near)})" if near else ""
            raise UsageError(f"no command {args[0]!r}{hint}; `evalkit --help` shows all")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and lines from the table, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _unavailable(command: str, module_name: str, error: ModuleNotFoundError) -> UsageError:
    missing = error.name or ""
    if module_name == missing or module_name.startswith(f"{missing}."):
        return UsageError(f"`evalkit {command}` is not part of this installation (no module {missing})")
    return _needs(missing, f"`evalkit {command}` needs")


def _needs(missing: str, who: str) -> UsageError:
    """A package that is not installed, and the extra that has it."""
    return UsageError(f"{who} the package {missing}: {fix_for(missing)}")


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"evalkit {VERSION}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": terminal.dashes},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@terminal.verbosity
def cli() -> None:
    """Evaluate vision-language models and compare them honestly.

    \b
    evalkit run -m mini-internvl-tiny -t drivelm --split miniature
    """


def invoke(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status (docs/quickstart.md)."""
    terminal.prepare_streams()
    if COMPLETION in os.environ:
        logging.disable()  # a shell asks for names
    terminal.remember(arguments)
    try:
        outcome = cli.main(list(arguments), prog_name="evalkit", standalone_mode=False)
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return terminal.fail(_one_line(error), 2)
    except EvalkitError as error:
        return terminal.fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return terminal.fail("interrupted; the same command continues", 130)
    except BrokenPipeError:
        terminal.silence_stdout()
        return 0
    except ModuleNotFoundError as error:
        return terminal.fail(str(_needs(error.name or str(error), "this needs")), 2)
    except OSError as error:
        names = ", ".join(str(name) for name in (error.filename, error.filename2) if name)
        return terminal.fail(f"{names or 'a file'}: {error.strerror or error}; what was stored is kept", 3)
    except MemoryError:
        return terminal.fail("out of memory; give a smaller --batch-size, or --max-tiles", 3)
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".strip()
        return terminal.fail(f"{cause} (an error in evalkit or a plug-in; -v shows where)", 3)


def _one_line(error: click.ClickException) -> str:
    text = error.format_message()
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        return f"{text.rstrip('.')}; see `{context.command_path} --help`"
    return text


def main() -> None:
    """Console script. SIGTERM ends any command as Ctrl-C does."""
    with terminal.interruptible():
        status = invoke(sys.argv[1:])
    sys.exit(status)
