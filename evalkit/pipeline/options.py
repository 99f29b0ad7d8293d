"""A run's options: each is one entry of a dataclass here, and stands nowhere else.

Made from the entries: the flags of `evalkit run`, `check`, `reproduce` and `train` with their help and
environment variables, the keywords of `evalkit.run`, `[run]` of a policy file, `evaluation` of a training
recipe, what the manifest keeps, what `evalkit reproduce` repeats, and docs/options.md.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evalkit.contracts import MAX_PIXELS, Json, ModelOptions
from evalkit.engines.rank import Rank
from evalkit.errors import UsageError
from evalkit.key_values import as_items
from evalkit.pipeline.judge_options import JudgeOptions, judge_options, without_password
from evalkit.pipeline.overrides import parse_gen
from evalkit.reasoning import ReasoningMode
from evalkit.request_form import without_secrets
from evalkit.trackers import base as trackers

PathLike = str | os.PathLike[str]

#: What an option decides. `question`: which model is asked which samples, and how; kept in the manifest.
#: `computation`: how the model computes; a run with another value is another run. `place`: where model and
#: data are; may change between sessions of a run. `call`: what this call does with the run.
Decides = Literal["question", "computation", "place", "call"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option, apart from its name, type and default, which are those of the dataclass's field.

    Attributes:
        flags: short spellings on the command line. aliases: earlier names, accepted everywhere.
        variables: environment variables in place of `EVALKIT_<FLAG>`.
        parse: makes the value that the run works with; raises UsageError.
        kept: makes what run folders hold of it, where that is not what `parse` makes.
        stored: name in run folders, where it differs. flag: whether the command line has it.
    """

    decides: Decides
    help: str
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    parse: Callable[[Any], Any] | None = None
    kept: Callable[[Any], Any] | None = None
    stored: str | None = None
    flag: bool = True


def option(decides: Decides, default: Any, help: str, **details: Any) -> Any:
    """A dataclass field that is an option."""
    return dataclasses.field(default=default, metadata={"option": Option(decides, help, **details)})


def comma_list(values: Sequence[str]) -> tuple[str, ...]:
    """Stripped, non-empty parts of comma lists."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    return comma_list(_texts(value))


def _storable(value: Mapping[str, Json] | Sequence[str]) -> tuple[str, ...]:
    """KEY=VALUE as run folders hold it."""
    return without_secrets(as_items(value))


def _batch_number(value: int | str | None) -> int | None:
    if value is None or (isinstance(value, str) and value.strip().lower() == "auto"):
        return None
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"--batch-size {value}: give a positive number, or auto")
    return number


def _address(value: str | None) -> str | None:
    return without_password(value) if value else None


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Options that a policy file and a training recipe may set too."""

    data_root: PathLike | None = option(
        "place", None, "Folder of the official files: DIR/<task> where that exists, otherwise DIR.",
        metavar="DIR", variables=("EVALKIT_DATA_ROOT", "EVALKIT_DATA"),
    )  # fmt: skip
    offline: bool = option("place", False, "Download nothing.")
    split: str | None = option(
        "question", None, "Default: the task's first. `miniature` is drawn and needs no data.", metavar="NAME"
    )
    protocol: str | None = option(
        "question", None, "How the task asks and scores. Default: paper.", metavar="NAME"
    )
    limit: int | None = option(
        "question", None, "Only N samples: a subset that is the same for every model and run.", metavar="N"
    )
    sample_id: str | Sequence[str] = option(
        "question", (), "Only this sample; repeatable.", metavar="ID", parse=_texts
    )
    max_tiles: int | None = option(
        "question", None, "Most tiles an image, in place of the protocol's (non-standard).", metavar="N"
    )
    max_pixels: int = option(
        "place", MAX_PIXELS, "Most pixels of an image; larger ones are refused.", metavar="N"
    )
    gen: Mapping[str, Json] | Sequence[str] = option(
        "question", (), "Generation setting in place of the protocol's (non-standard), or a setting of the "
        "model; repeatable.", metavar="KEY=VALUE", parse=as_items, kept=_storable,
    )  # fmt: skip
    reasoning: ReasoningMode = option(
        "question", "auto", "Text in think tags: kept but not scored (strip), scored (keep), or as the "
        "protocol does (auto).",
    )  # fmt: skip
    seed: int = option("question", 0, "Seed of sampling.", metavar="N")
    subset_seed: int = option("question", 0, "Seed of --limit.", metavar="N")
    repeats: int = option(
        "question", 1, "Ask each question N times, temperature above 0 (docs/several-runs.md).", metavar="N"
    )
    dtype: str = option("question", "auto", "bfloat16, float16, float32 or int8.", metavar="NAME")
    template: str = option(
        "question", "auto", "How conversations are written: auto (as the checkpoint says), chat_template, "
        "or a template's name (docs/models.md).", metavar="NAME",
    )  # fmt: skip
    compile: bool = option(
        "computation",
        False,
        "Run the network through torch.compile; on a GPU with CUDA graphs (docs/models.md).",
    )
    prefix_caching: bool = option(
        "computation", True, "Encode an image once and prefill a common prefix once; changes no answer.",
        aliases=("sharing",), stored="sharing",
    )  # fmt: skip
    device: str = option("place", "auto", "cpu, cuda, cuda:1 or mps.", metavar="NAME")
    batch_size: int | str | None = option(
        "place", "auto", "Requests in a batch.", metavar="auto|N", parse=_batch_number
    )
    base_url: str | None = option(
        "place", None, "Address of the server of a served model.", metavar="URL", parse=_address
    )
    engine: Literal["local", "ray"] = option("place", "local", "Where the model runs (docs/scaling.md).")
    ray_address: str | None = option(
        "place", None, "Address of a running cluster; `auto` is this machine's. Default: start one here.",
        metavar="ADDRESS", variables=("EVALKIT_RAY_ADDRESS", "RAY_ADDRESS"),
    )  # fmt: skip
    cpus_per_worker: int | None = option(
        "place", None, "Ray: cores of a worker. A node without GPUs has as many workers as its cores allow.",
        metavar="N",
    )  # fmt: skip
    ship_data: bool = option(
        "place", False, "Ray: send the images with the requests, for nodes that do not see the data root."
    )
    worker_timeout: float = option(
        "place", 1800.0, metavar="SECONDS",
        help="Seconds without an answer (Ray worker) or heartbeat (rank) before it counts as lost.",
    )  # fmt: skip
    judge: str | None = option(
        "call", None, "OpenAI-compatible endpoint of a judge; its key is read from EVALKIT_JUDGE_KEY.",
        metavar="URL", parse=_address,
    )  # fmt: skip
    judge_model: str | None = option(
        "call", None, "Name of the judge's model at that endpoint.", metavar="NAME"
    )
    judge_gen: Mapping[str, Json] | Sequence[str] = option(
        "call", (), "How the judge is asked (temperature, max_new_tokens, extra_body …); repeatable.",
        metavar="KEY=VALUE", parse=as_items, kept=_storable,
    )  # fmt: skip
    judge_repeats: int | None = option(
        "call", None, "Ask the judge N times about each answer. Default: 1, or as the run was judged.",
        metavar="N",
    )  # fmt: skip
    judge_labels: PathLike | None = option(
        "call", None, "Ratings by people of some answers (CSV or JSON Lines: id, rating), by which the judge "
        "is corrected.", metavar="FILE",
    )  # fmt: skip

    log_to: str | Sequence[str] = option(
        "call", (), "Log the finished run to wandb, mlflow, trackio or tensorboard too; repeatable.",
        metavar="NAME", parse=_names,
    )  # fmt: skip
    log_samples: bool = option("call", False, "Log the samples as a table too.")

    @property
    def trackers(self) -> tuple[str, ...]:
        """`log_to` as names."""
        return _names(self.log_to)

    @property
    def root(self) -> Path | None:
        """`data_root` as a path."""
        return None if self.data_root is None else Path(self.data_root)

    @property
    def sample_ids(self) -> tuple[str, ...]:
        """`sample_id` as ids; empty: all samples."""
        return _texts(self.sample_id)

    @property
    def gen_items(self) -> tuple[str, ...]:
        """`gen` as KEY=VALUE."""
        return as_items(self.gen)

    @property
    def batch(self) -> int | None:
        """`batch_size` as a number; None: automatic."""
        return _batch_number(self.batch_size)

    @property
    def ratings(self) -> Path | None:
        """`judge_labels` as a path."""
        return None if self.judge_labels is None else Path(self.judge_labels)

    @property
    def judge_options(self) -> JudgeOptions | None:
        """The judge, if there is one."""
        return judge_options(self.judge, self.judge_model, self.judge_gen, self.judge_repeats)

    def check(self) -> None:
        """Raises UsageError for values that cannot be."""
        for name, entry in options_of(type(self)).items():
            value = getattr(self, name)
            if entry.option.parse is not None:
                entry.option.parse(value)
            if entry.choices and value not in (entry.default, *entry.choices):
                raise UsageError(f"{entry.flag} {value}: there are {', '.join(entry.choices)}")
        _ = self.judge_options
        if self.trackers:
            trackers.check(self.trackers)
        for name in ("limit", "cpus_per_worker", "max_tiles", "max_pixels", "repeats"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_flag(name)} {value}: give a positive number")
        if not self.worker_timeout > 0:
            raise UsageError(f"--worker-timeout {self.worker_timeout:g}: give a positive number of seconds")


@dataclass(frozen=True, kw_only=True)
class RunKeywords(RunSettings):
    """All options of `evalkit run` and `evalkit.run` but the model and the task."""

    checkpoint: PathLike | None = option(
        "question", None, "Weights to load in place of the model's own.", metavar="DIR"
    )
    revision: str | None = option("question", None, "Branch, tag or commit on the Hub.", metavar="REV")
    devices: int = option("place", 1, "Worker processes, each with a device of its own.", metavar="N")
    output: PathLike = option("call", "runs", "Folder of run folders.", metavar="DIR", flags=("-o",))
    resume: bool = option("call", True, "Go on with the latest run of the same settings.")
    quiet: bool = option("call", False, "Only warnings.", flag=False)

    @property
    def weights(self) -> str | None:
        """`checkpoint` as text."""
        return None if self.checkpoint is None else os.fspath(self.checkpoint)

    @property
    def runs(self) -> Path:
        """`output` as a path."""
        return Path(self.output)

    def check(self) -> None:
        """Raises UsageError for values that cannot be."""
        super().check()
        if self.devices < 1:
            raise UsageError(f"--devices {self.devices}: give a positive number")
        if self.engine == "ray" and self.devices > 1:
            raise UsageError("--engine ray takes every GPU of the cluster; leave --devices out")
        if self.devices > 1 and self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(
                f"--devices {self.devices} --device {self.device}: name one device or several, not both"
            )


@dataclass(frozen=True)
class RunOptions(RunKeywords):
    """The options of one call of `evalkit run`; the same for all of its tasks.

    Attributes:
        model: what follows `--model`. rank: which of several equal processes this is; None: the only one.
    """

    model: str
    rank: Rank | None = dataclasses.field(default=None, kw_only=True)

    def check(self) -> None:
        """Raises UsageError for values that cannot be."""
        super().check()
        if self.rank is not None and (self.engine != "local" or self.devices > 1):
            raise UsageError(
                f"this is {self.rank.name}, as torchrun or srun says, and each rank has one device: leave "
                "--engine and --devices out, or give --no-ranks"
            )


class Entry(NamedTuple):
    """An option of a dataclass.

    Attributes:
        kinds: types of values as TOML and YAML have them. choices: the only values, where not empty.
    """

    name: str
    option: Option
    kinds: tuple[type, ...]
    choices: tuple[str, ...]
    default: Any

    @property
    def flag(self) -> str:
        """Its long flag."""
        return _flag(self.name)

    @property
    def stored(self) -> str:
        """Its name in run folders."""
        return self.option.stored or self.name


def options_of(kind: type[Any], decides: Decides | None = None) -> dict[str, Entry]:
    """The options of a dataclass by name, in their order; with `decides`, only those of that kind."""
    hints = typing.get_type_hints(kind)
    found = {
        field.name: Entry(
            field.name, field.metadata["option"], *_values(hints[field.name]), default=field.default
        )
        for field in dataclasses.fields(kind)
        if "option" in field.metadata
    }
    return {name: entry for name, entry in found.items() if decides in (None, entry.option.decides)}


def current_name(name: str, kind: type[Any]) -> str:
    """The name of an option that may be written with dashes, or by an earlier name."""
    plain = name.replace("-", "_")
    aliases = {old: entry.name for entry in options_of(kind).values() for old in entry.option.aliases}
    return aliases.get(plain, plain)


def stored(options: RunSettings, decides: Decides) -> dict[str, Json]:
    """The values of a kind of options as the manifest keeps them; without passwords."""
    return {
        entry.stored: _plain(getattr(options, name), entry.option.kept or entry.option.parse)
        for name, entry in options_of(type(options), decides).items()
    }


def model_options(options: RunKeywords) -> ModelOptions:
    """The options that a model family receives."""
    told = {field.name for field in dataclasses.fields(ModelOptions)} & options_of(type(options)).keys()
    given: dict[str, Any] = {name: getattr(options, name) for name in told}
    _, extra = parse_gen(options.gen_items)
    return ModelOptions(
        **{**given, "checkpoint": options.weights, "batch_size": options.batch, "extra": extra}
    )


def _plain(value: Any, parse: Callable[[Any], Any] | None) -> Json:
    value = parse(value) if parse is not None else value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return list(value) if isinstance(value, tuple) else value


def _values(hint: Any) -> tuple[tuple[type, ...], tuple[str, ...]]:
    """Types of an annotation's values, and its choices."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return (str,), arguments
    if origin in (types.UnionType, typing.Union):
        found = [_values(argument) for argument in arguments]
        kinds = dict.fromkeys(kind for each, _ in found for kind in each)
        return tuple(kinds), tuple(choice for _, choices in found for choice in choices)
    if origin is os.PathLike or hint is type(None):
        return (), ()
    if isinstance(origin, type):
        return (dict,) if issubclass(origin, Mapping) else (list,), ()
    return (int, float) if hint is float else (hint,), ()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
