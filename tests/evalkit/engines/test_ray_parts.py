"""What `--engine ray` is made of, without Ray: the actor's side, images on their way, figures, flags."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from toy import FakeModel, make_benchmark

from evalkit import registry, task_files
from evalkit.cli.main import invoke
from evalkit.contracts import Message, Model, ModelInfo, Request, Response
from evalkit.data.images import ImageBytes, ImageFile
from evalkit.engines import ray_actors, ray_nodes
from evalkit.engines.ray_actors import ActorPool
from evalkit.engines.ray_nodes import NodeStatistics, Shape
from evalkit.engines.ray_worker import Delivery, RayWorker, Report, Shipper, data_hash
from evalkit.environment import git_revision, versions
from evalkit.errors import CheckpointError, EvalkitError, ImageError, UsageError
from evalkit.installation import install_command
from evalkit.pipeline.options import RunOptions


class Careful(FakeModel):
    """Fails on demand."""

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """In order."""
        for request in requests:
            if request.id == "memory":
                raise MemoryError
            if request.id == "user":
                raise CheckpointError("a shard is gone")
            yield request.id, self.answer(request)


def load(number: int) -> Model:
    """The model of a worker."""
    return Careful()


def refuse(number: int) -> Model:
    """No model."""
    raise ValueError("no such thing")


def asked(name: str, *images: Any) -> Request:
    """A request."""
    return Request(name, (Message("user", "?"),), images)


def keyed(*requests: Request) -> list[tuple[Request, str]]:
    """With their hashes."""
    return [(request, request.key()) for request in requests]


@pytest.fixture
def image(tmp_path: Path) -> ImageFile:
    """A small file."""
    from PIL import Image

    path = tmp_path / "p.png"
    Image.new("RGB", (4, 3), (1, 2, 3)).save(path)
    return ImageFile(str(path))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> RayWorker:
    """A worker that has loaded, with what it sets in its environment taken back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    made = RayWorker()
    report = made.load(load, (), 3, accelerator=False)
    assert report.info.name == "fake" and report.versions == versions()
    return made


def drain(worker: RayWorker, chunks: int) -> Delivery:
    """All news until so many chunks are done or something is wrong."""
    found = Delivery()
    while found.finished < chunks and not found.fault:
        news = worker.exchange(())
        found.answers += news.answers
        found.finished += news.finished
        found.busy += news.busy
        found.fault, found.error, found.out_of_memory = news.fault, news.error, news.out_of_memory
    return found


def test_a_worker_answers_chunks_and_tells_how_long_it_was_at_work(worker: RayWorker) -> None:
    first = worker.exchange([keyed(asked("1"), asked("2")), keyed(asked("3"))])
    rest = drain(worker, 2 - first.finished)
    assert [name for name, _ in first.answers + rest.answers] == ["1", "2", "3"]
    assert first.finished + rest.finished == 2 and first.busy + rest.busy > 0


@pytest.mark.parametrize(("name", "fault", "memory"), [("memory", "broken", True), ("user", "raised", False)])
def test_a_worker_says_what_went_wrong(worker: RayWorker, name: str, fault: str, memory: bool) -> None:
    delivery = worker.exchange([keyed(asked("1"), asked(name))])
    found = delivery if delivery.fault else drain(worker, 1)
    assert found.fault == fault and found.out_of_memory is memory
    assert isinstance(found.error, CheckpointError if name == "user" else EvalkitError)
    assert isinstance(pickle.loads(pickle.dumps(found.error)), EvalkitError)


def test_a_worker_that_reads_other_images_than_the_driver_says_so(
    worker: RayWorker, image: ImageFile
) -> None:
    request = asked("1", image)
    here, keys = data_hash([request])
    chunk = keyed(request)
    assert worker.data_hash([request]) == (here, keys)
    Path(image.path).unlink()
    assert worker.data_hash([request])[0] != here
    found = worker.exchange([chunk])
    assert found.fault == "foreign" and not found.answers
    assert str(found.error) == f"the images of sample '1' ({image.path}) are not what the driver reads"


def test_an_error_of_loading_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(EvalkitError, match="a worker stopped: ValueError: no such thing"):
        RayWorker().load(refuse, (), 1, accelerator=True)


def test_task_files_are_sent_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: RayWorker
) -> None:
    monkeypatch.setattr(registry, "_included", {})
    task = make_benchmark(tmp_path / "data", samples=1)
    (task.parent / "shared_bits.py").write_text("def norm(text):\n    return text\n")
    (task.parent / "later.py").write_text("NAME = 'later'\n")
    task.write_text(f"from .shared_bits import norm\n{task.read_text()}")
    registry.include(task)
    module = registry.tasks()["yes-no"].__module__
    (code,) = task_files.code_of([task])
    assert set(code.files) == {"yes_no.py", "shared_bits.py", "later.py"}
    registry._included.clear()
    shutil.rmtree(task.parent)  # another machine has no such folder
    RayWorker().load(load, pickle.loads(pickle.dumps([code])), 1, accelerator=False)
    assert registry.tasks()["yes-no"].__module__ == module  # objects of its classes can be sent


def test_a_sent_image_is_the_same_to_everybody(image: ImageFile) -> None:
    shipper = Shipper()
    request = asked("1", image, ImageBytes(Path(image.path).read_bytes(), "cell"))
    sent = shipper.pack(request)
    again = shipper.pack(asked("2", image))
    assert sent.key() == request.key() and sent.images[0] is again.images[0]
    before = [image.open().tobytes() for image in request.images]
    names = [image.identity() for image in request.images]
    Path(image.path).unlink()
    arrived = pickle.loads(pickle.dumps(sent))
    assert [image.open().tobytes() for image in arrived.images] == before
    assert [image.identity() for image in arrived.images] == names
    assert arrived.images[0].paths() == (image.path,)


def test_an_image_that_is_missing_here_fails_its_sample_there(tmp_path: Path) -> None:
    request = asked("1", ImageFile(str(tmp_path / "gone.png")))
    sent = pickle.loads(pickle.dumps(Shipper().pack(request)))
    assert sent.key() == request.key()
    with pytest.raises(ImageError, match=r"gone\.png: image missing"):
        sent.images[0].open()


@dataclasses.dataclass(frozen=True)
class Made:
    """An image that is in no file."""

    mode: str

    def open(self) -> Any:
        """Six pixels."""
        from PIL import Image

        return Image.new(self.mode, (3, 2))

    def digest(self) -> str:
        """Any."""
        return "d"

    def identity(self) -> str:
        """Its mode."""
        return self.mode

    def paths(self) -> tuple[str, ...]:
        """None."""
        return ()


def test_pixels_that_are_in_no_file_are_sent_without_loss_or_not_at_all() -> None:
    for mode in ("RGB", "L", "RGBA", "1"):
        sent = Shipper().pack(asked("1", Made(mode))).images[0]
        assert sent.open().tobytes() == Made(mode).open().tobytes() and sent.open().mode == mode
    with pytest.raises(UsageError, match="--ship-data: CMYK has pixels of mode CMYK"):
        Shipper().pack(asked("1", Made("CMYK")))


@pytest.mark.parametrize(
    ("shape", "resources", "places", "threads", "wanted"),
    [
        (Shape(True, None), {"GPU": 4.0, "CPU": 32.0}, 4, 8, {"num_gpus": 1, "num_cpus": 1}),
        (Shape(True, 6), {"GPU": 2.0, "CPU": 32.0}, 2, 6, {"num_gpus": 1, "num_cpus": 6}),
        (Shape(True, None), {"CPU": 32.0}, 0, 32, {"num_gpus": 1, "num_cpus": 1}),
        (Shape(False, None), {"GPU": 4.0, "CPU": 32.0}, 1, 32, {"num_gpus": 0, "num_cpus": 32}),
        (Shape(False, 5), {"CPU": 32.0}, 6, 5, {"num_gpus": 0, "num_cpus": 5}),
        (Shape(False, None), {"memory": 1.0}, 0, 1, {"num_gpus": 0, "num_cpus": 1}),
    ],
)
def test_places_of_a_node(
    shape: Shape, resources: dict[str, float], places: int, threads: int, wanted: dict[str, float]
) -> None:
    assert shape.places(resources) == places and shape.threads(resources) == threads
    assert shape.resources(resources) == wanted


@pytest.mark.parametrize("gpus", [None, 0.0, 0.5, 1.0])
def test_workers_have_a_gpu_where_a_node_has_a_whole_one(
    gpus: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = ray_nodes.Node("a", "host/a", {"CPU": 4.0})
    other = ray_nodes.Node("b", "host/b", {"CPU": 4.0, **({} if gpus is None else {"GPU": gpus})})
    monkeypatch.setattr(ray_nodes, "nodes", lambda: {"a": cpus, "b": other})
    whole = gpus == 1.0
    assert ray_nodes.shape("auto", 2) == Shape(whole, 2)
    assert ray_nodes.shape("cpu", None) == Shape(False, None)
    if whole:
        assert ray_nodes.shape("cuda", None) == Shape(True, None)
    else:
        with pytest.raises(UsageError, match="no node of the cluster has a GPU"):
            ray_nodes.shape("cuda", None)


def test_figures_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(ray_nodes.time, "monotonic", lambda: now[0])
    figures = NodeStatistics()
    assert figures.line() == ""
    figures.workers("a", 1)
    figures.workers("a", 1)
    now[0] += 5
    figures.workers("a", -1)
    figures.add("a", 30, 60, 9.0)
    now[0] += 5
    assert figures.report()["a"] == {
        "workers": 1,
        "samples": 30,
        "samples_per_second": 3.0,
        "new_tokens": 60,
        "busy_seconds": 9.0,
        "utilisation": 0.6,
    }
    assert figures.line() == "a 3/s 60% busy"
    for name in "bcdef":
        figures.add(name, 10, 0, 0.0)
    assert figures.line() == "6 nodes 10% busy, slowest b 1/s, idlest b 0%"
    figures.stop()
    now[0] += 100
    assert figures.report()["a"]["samples_per_second"] == 3.0


@dataclasses.dataclass
class Admitted:
    """As much of a worker as admitting it needs."""

    name: str
    state: str = "loading"
    process: int | None = None


@pytest.fixture
def actor_pool() -> ActorPool:
    """A pool that was never placed."""
    made = object.__new__(ActorPool)
    made.info, made._first = None, ""
    return made


def report(info: ModelInfo, **changes: str) -> Report:
    """Of a worker with this software, but for the changes."""
    return Report(info, {**versions(), **changes}, git_revision(), 1, ())


def test_a_worker_that_differs_is_refused_by_what_differs(actor_pool: ActorPool) -> None:
    info = FakeModel().info
    with pytest.raises(EvalkitError, match=r"torch 1\.0 there, \S+ in the driver; make them the same"):
        actor_pool.admit(Admitted("a"), report(info, torch="1.0"))  # type: ignore[arg-type]
    actor_pool.admit(Admitted("a"), report(info))  # type: ignore[arg-type]
    actor_pool.admit(Admitted("b"), report(dataclasses.replace(info, device="cuda:0")))  # type: ignore[arg-type]
    for name, value in (("fingerprint", "9"), ("dtype", "float16"), ("settings", {"template": "x"})):
        with pytest.raises(EvalkitError, match="in a; make them the same"):
            actor_pool.admit(Admitted("c"), report(dataclasses.replace(info, **{name: value})))  # type: ignore[arg-type]


def test_a_worker_on_other_code_is_told_of(
    actor_pool: ActorPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = dataclasses.replace(report(FakeModel().info), commit={"commit": "abc", "changed": False})
    actor_pool.admit(Admitted("a"), other)  # type: ignore[arg-type]
    assert "a runs another state of the code" in caplog.text


def test_a_place_is_given_up_after_so_many_losses_in_a_row(actor_pool: ActorPool) -> None:
    place, forgiven = ("n", 0), ("n", 1)
    actor_pool.workers, actor_pool.refused, actor_pool.lost = {}, {}, 0
    actor_pool._losses, actor_pool._ray = Counter(), None

    def lose(place: tuple[str, int], blame: bool = True) -> Any:
        worker = types.SimpleNamespace(
            place=place, name=f"worker {place[1]}", call=1, actor=None, done=0, busy=0.0
        )
        actor_pool.remove(worker, "killed", blame)  # type: ignore[arg-type]
        return worker

    for _ in range(ray_actors.MOST_PLACE_LOSSES):
        lose(forgiven, blame=False)
        worker = lose(forgiven)
        actor_pool.answered(worker, 1, 0.5)
        assert not actor_pool.refused
        assert worker.call is None and (worker.done, worker.busy) == (1, 0.5)
    for _ in range(ray_actors.MOST_PLACE_LOSSES - 1):
        lose(place)
    assert not actor_pool.refused
    lose(place)
    assert list(actor_pool.refused) == [place]
    assert "in a row without an answer between, the last time: killed" in str(actor_pool.refused[place][1])
    assert actor_pool.lost == 3 * ray_actors.MOST_PLACE_LOSSES


def test_waiting_for_a_cluster_ends(actor_pool: ActorPool, monkeypatch: pytest.MonkeyPatch) -> None:
    actor_pool.workers, actor_pool.refused = {}, {}
    actor_pool._waiting_since = time.monotonic()
    actor_pool.check_alive(1.0)
    monkeypatch.setattr(ray_actors, "_WAIT", 0.0)
    actor_pool._waiting_since -= 2
    with pytest.raises(EvalkitError, match="the cluster gave no worker in 1 s: no node has room"):
        actor_pool.check_alive(1.0)
    actor_pool.refused = {
        ("n", 0): ("worker 0 on n", CheckpointError("gone")),
        ("n", 1): ("b", EvalkitError("x")),
    }
    with pytest.raises(CheckpointError, match="no worker is left: worker 0 on n: gone"):
        actor_pool.check_alive(1.0)


def test_without_the_package_the_fix_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["run", "-m", "mini-internvl-tiny", "-t", "chartqa@miniature", "--engine", "ray"]
    assert invoke(arguments) == 2
    assert f"--engine ray needs the package ray: {install_command('ray')}" in capsys.readouterr().err


def test_what_is_compiled_answers_in_the_thread_that_loads(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "-m", "mini-internvl-tiny", "-t", "chartqa@miniature", "--engine", "ray", "--compile"]
    assert invoke(arguments) == 2
    assert "--compile with --engine ray: CUDA graphs belong to the thread" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"engine": "spark"}, "there are local, ray"),
        ({"engine": "ray", "devices": 2}, "leave --devices out"),
        ({"engine": "ray", "cpus_per_worker": 0}, "--cpus-per-worker 0: give a positive number"),
        ({"engine": "ray", "worker_timeout": 0.0}, "--worker-timeout 0: give a positive number of seconds"),
    ],
)
def test_flags_are_checked(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunOptions("m", **flags).check()


def test_the_gate_takes_the_engine_from_policy_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_environment: None
) -> None:
    from evalkit.pipeline import run as workflow

    taken: list[RunOptions] = []

    def pool(load: object, options: RunOptions) -> Model:
        taken.append(options)
        raise UsageError("enough")

    monkeypatch.setattr(workflow, "ray_engine", pool)
    monkeypatch.setattr("evalkit.comparison.policy.baseline_runs", lambda policy: {})
    (tmp_path / "evalkit.toml").write_text(
        'baseline = "b"\ntasks = ["chartqa@miniature"]\n[run]\nengine = "ray"\ncpus_per_worker = 3\n'
    )
    command = ["check", "-m", "mini-internvl-tiny", "--policy", str(tmp_path / "evalkit.toml")]
    assert invoke(command) == 2
    assert invoke([*command, "--cpus-per-worker", "5", "--ray-address", "auto", "--ship-data"]) == 2
    found = [(o.engine, o.cpus_per_worker, o.ray_address, o.ship_data) for o in taken]
    assert found == [("ray", 3, None, False), ("ray", 5, "auto", True)]
