"""What a run is asked to do: the command line's flags as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from evalkit.engines.rank import Rank
from evalkit.errors import UsageError

#: Where the model runs: `local` is this process, or a worker process for each of several devices.
ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True)
class MaxErrors:
    """How many samples may fail before a finished run counts as bad: a number, or a percentage."""

    number: float = 0
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> MaxErrors:
        """`N` or `P%`. Raises UsageError otherwise."""
        percent = text.strip().endswith("%")
        try:
            number = float(text.strip().rstrip("%"))
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf") or (not percent and number != int(number)):
            raise UsageError(f"--max-errors {text}: write a number of samples, or a percentage such as 2%")
        return cls(number, percent)

    def exceeded(self, errors: int, expected: int) -> bool:
        """Whether so many errors are too many."""
        return errors > (self.number * expected / 100 if self.percent else self.number)


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """An OpenAI-compatible endpoint that judges answers; its key comes from the environment."""

    url: str
    model: str

    def to_json(self) -> dict[str, str]:
        """For the manifest; a password in the address is left out."""
        return {"url": without_password(self.url), "model": self.model}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The flags of `evalkit run` that are the same for all of its tasks (docs/quickstart.md)."""

    model: str
    checkpoint: str | None = None
    revision: str | None = None
    data_root: Path | None = None
    split: str | None = None
    protocol: str | None = None
    limit: int | None = None
    sample_ids: tuple[str, ...] = ()
    batch_size: int | None = None
    max_tiles: int | None = None
    gen: tuple[str, ...] = ()
    dtype: str = "auto"
    device: str = "auto"
    devices: int = 1
    seed: int = 0
    output: Path = Path("runs")
    resume: bool = True
    max_errors: MaxErrors = MaxErrors()
    judge: JudgeOptions | None = None
    base_url: str | None = None
    engine: str = "local"
    ray_address: str | None = None
    cpus_per_worker: int | None = None
    ship_data: bool = False
    worker_timeout: float = 1800.0
    offline: bool = False
    sharing: bool = True
    compile: bool = False
    quiet: bool = False
    rank: Rank | None = None

    def check(self) -> None:
        """Raises UsageError for what cannot be."""
        if self.engine not in ENGINES:
            raise UsageError(f"--engine {self.engine}: there are {', '.join(ENGINES)}")
        if self.engine == "ray" and self.devices > 1:
            raise UsageError("--engine ray takes every GPU of the cluster; leave --devices out")
        if self.rank is not None and (self.engine != "local" or self.devices > 1):
            raise UsageError(
                f"this is {self.rank.name}, as torchrun or srun says, and each rank has one device: leave "
                "--engine and --devices out, or give --no-ranks"
            )
        if self.cpus_per_worker is not None and self.cpus_per_worker < 1:
            raise UsageError(f"--cpus-per-worker {self.cpus_per_worker}: give a positive number")
        if not self.worker_timeout > 0:
            raise UsageError(f"--worker-timeout {self.worker_timeout:g}: give a positive number of seconds")
        if self.devices < 1:
            raise UsageError(f"--devices {self.devices}: give a positive number")
        if self.devices > 1 and self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(
                f"--devices {self.devices} --device {self.device}: name one device or several, not both"
            )
        if self.max_tiles is not None and self.max_tiles < 1:
            raise UsageError(f"--max-tiles {self.max_tiles}: give a positive number")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size}: give a positive number, or auto")


def judge_options(url: str | None, model: str | None) -> JudgeOptions | None:
    """Both flags or none.

    Raises:
        UsageError: one without the other.
    """
    if not url and not model:
        return None
    if not url or not model:
        raise UsageError("--judge URL and --judge-model NAME belong together")
    return JudgeOptions(url, model)


def without_password(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def comma_list(values: Sequence[str]) -> tuple[str, ...]:
    """Stripped, non-empty parts of comma lists."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())
