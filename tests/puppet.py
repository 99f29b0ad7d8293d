"""A model that misbehaves on demand, installed as a plug-in in a folder of its own for processes to find.

`puppet:FILE` reads its wishes from a JSON file before each answer: `delay` (seconds an answer); `kill`,
`hang` or `burst` (the id of the sample on which the process kills itself, hangs, or takes more memory than
it may); and `once` (a folder, in which a misbehaviour leaves its mark and then is not repeated). Answers
depend on the sample's id alone.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalkit.contracts import Failure, Model, ModelInfo, ModelOptions, Request, Response
from evalkit.errors import CheckpointError, ImageError

_SOURCE = Path(__file__)


def install(folder: Path) -> str:
    """Make a folder with this module and the entry point that evalkit finds it by. Returns PYTHONPATH."""
    folder.mkdir(parents=True)
    (folder / "puppet.py").write_text(_SOURCE.read_text())
    info = folder / "puppet-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: puppet\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[evalkit.models]\npuppet = puppet:FAMILY\n")
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def write_wishes(path: Path, **wishes: str) -> None:
    """Write them whole: processes read them at any time."""
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(wishes))
    scratch.replace(path)


class Puppet:
    """Answers `yes` or `no`."""

    def __init__(self, wishes: str) -> None:
        self._file = wishes
        self._wishes: dict[str, str] = {}
        self.info = ModelInfo(
            name="puppet", fingerprint=os.environ.get("PUPPET_WEIGHTS", "00"), dtype="float32", device="cpu"
        )

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """In order."""
        for request in requests:
            self._wishes = json.loads(Path(self._file).read_text()) if self._file else {}
            time.sleep(float(self._wishes.get("delay", 0)))
            for what in ("kill", "hang", "burst"):
                if self._wishes.get(what) == request.id and self._first_time():
                    getattr(self, f"_{what}")()
            try:
                for image in request.images:
                    image.open()
            except ImageError as error:
                yield request.id, Response(error=Failure("image", str(error)))
                continue
            text = "No." if sum(map(ord, request.id)) % 5 == 0 else "Yes"
            yield request.id, Response(text, "stop", 9, 256, 2)

    def close(self) -> None:
        """Nothing to free."""

    def _first_time(self) -> bool:
        if "once" not in self._wishes:
            return True
        try:
            Path(self._wishes["once"], "done").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self) -> None:
        time.sleep(3600)

    def _burst(self) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        bytearray(16 << 30)


class PuppetFamily:
    """Finds `puppet`."""

    def names(self) -> Sequence[str]:
        """The one name."""
        return ("puppet",)

    def matches(self, spec: str) -> bool:
        """`puppet`, with a file of wishes or without."""
        return spec.partition(":")[0] == "puppet"

    def load(self, spec: str, options: ModelOptions) -> Model:
        """Refuses where the environment says so."""
        if "PUPPET_REFUSES" in os.environ:
            raise CheckpointError("weights.safetensors: no such file")
        return Puppet(spec.partition(":")[2])


FAMILY = PuppetFamily()
