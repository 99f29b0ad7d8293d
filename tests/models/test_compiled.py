"""Compiled parts answer as those they were made of; what cannot be compiled is one line before the run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_networks as networks
import torch
import torch._inductor.config
from torch import Tensor

import mini_internvl
from evalkit.cli.main import invoke
from mini_internvl import CompileError, GenerationSettings
from mini_internvl.batching import BatchRunner
from mini_internvl.compiled import compile_network
from mini_internvl.decode_step import Layer, padded_rows
from mini_internvl.generation import TokenRules
from mini_internvl.model import CompiledStep
from mini_internvl.prompt_groups import TokenSequence

RULES = TokenRules(stop=(2, *range(80, 110)), forbidden=(networks.IMAGE_TOKEN,), pad=2)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """torch keeps what it compiled for a function, whichever network it was for."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def load(folder: Path, family: str = "qwen2", dtype: str = "float32") -> Any:
    """A small random network."""
    networks.save_native(family, folder)
    model = mini_internvl.load(folder, dtype=dtype, device="cpu")
    model.image_token_id = networks.IMAGE_TOKEN
    return model


def answers(model: Any, seed: int = 0, questions: int = 11) -> list[list[int]]:
    """Tokens of questions on one picture that end at unlike lengths, so that rows leave on the way."""
    drawn = random.Random(seed)
    tiles = torch.randint(0, 256, (2, 3, 56, 56), generator=torch.Generator().manual_seed(seed))
    tiles = tiles.to(torch.uint8)
    image = [498, *[networks.IMAGE_TOKEN] * (2 * networks.TOKENS_PER_TILE), 499]
    rows = [
        TokenSequence([1, *image, *(drawn.randrange(3, 400) for _ in range(2 + place % 7))], tiles)
        for place in range(questions)
    ]
    found = BatchRunner(model).run(rows, GenerationSettings(max_new_tokens=24), RULES)
    assert len({len(answer.tokens) for answer in found}) > 1
    return [answer.tokens for answer in found]


def compile_by(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    """Has `torch.compile` hand what it traced to this in place of its own compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2"])
def test_compiled_answers_are_the_same(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path.parent / "inductor"))
    model = load(tmp_path, family)
    before = [answers(model, seed) for seed in range(8)]
    tiles = torch.randint(0, 256, (3, 3, 56, 56), dtype=torch.uint8)
    features = model.encode_images(tiles)
    compile_network(model, step=True)
    assert [answers(model, seed) for seed in range(8)] == before
    with torch.inference_mode():
        assert (model.encode_images(tiles) - features).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("family", ["phi3"])
def test_all_layers_and_sizes_share_what_was_compiled_first(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    model = load(tmp_path, family)
    before = answers(model)
    compile_by(monkeypatch, backend)
    compile_network(model, step=True)
    assert len(graphs) == 6  # three parts, each for one and for more
    assert answers(model) == before and len(answers(model, 1, questions=5)) == 5
    assert len(graphs) == 6


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_graphs_copy_no_weights(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay copies what may lie elsewhere each time, never weights, and takes no number from the host."""
    from torch._inductor.compile_fx import compile_fx

    tensors: list[int] = []
    scalars: list[Tensor] = []

    def inner(graph: Any, inputs: list[Any], **settings: Any) -> Any:
        changing = [x for i, x in enumerate(inputs) if i not in set(settings["static_input_idxs"])]
        tensors.append(sum(isinstance(x, Tensor) for x in changing))
        scalars.extend(x for x in changing if isinstance(x, Tensor) and x.ndim == 0)
        return graph

    model = load(tmp_path, "phi3", "int8" if dtype == "int8" else "float32")
    if dtype == "bfloat16":
        model.to(torch.bfloat16)  # as on a GPU: no products in float32
    compile_by(monkeypatch, partial(compile_fx, inner_compile=inner))
    compile_network(model, step=True)
    assert tensors == [1, 3, 2, 1, 3, 2]  # x; x, cos and sin; x and what attention said
    assert not scalars  # such as a norm's epsilon, which would keep a graph from being recorded


@pytest.mark.parametrize("family", ["phi3"])
def test_a_graphs_results_are_used_before_they_are_overwritten(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins for graphs: they take padded rows only, and lose all they gave when the next step begins."""
    given: list[Tensor] = []
    seen: set[int] = set()
    steps: list[int] = []

    def begin() -> None:
        steps.append(len(given))
        for result in given:
            result.fill_(float("nan"))
        given.clear()

    def graph(part: Callable[..., Any]) -> Callable[..., Any]:
        def replay(layer: Layer, x: Tensor, *rest: Tensor) -> Any:
            assert all(len(x) == len(other) for other in rest)
            seen.add(len(x))
            results = part(layer, x, *rest)
            given.extend([results] if isinstance(results, Tensor) else results)
            return results

        return replay

    model = load(tmp_path, family)
    before = answers(model)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", begin)
    model.compiled = CompiledStep(graph(Layer.before), graph(Layer.after), graphs=True)
    assert answers(model) == before
    assert len(seen) > 1 and all(rows == padded_rows(rows) for rows in seen)
    assert len(steps) > 5 and steps[0] == 0 and all(steps[1:])


def test_rows_are_padded_to_powers_of_two() -> None:
    assert [padded_rows(rows) for rows in (1, 2, 3, 4, 5, 8, 9, 512)] == [1, 2, 4, 4, 8, 8, 16, 512]


@pytest.mark.slow
def test_layers_of_other_kinds_can_be_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tmp_path, dtype="int8")
    before = answers(model)
    compile_by(monkeypatch, "eager")
    compile_network(model, step=True)
    assert answers(model) == before


def test_on_a_cpu_only_the_encoder_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_by(monkeypatch, "eager")
    networks.save_native("qwen2", tmp_path)
    model = mini_internvl.load(tmp_path, dtype="float32", device="cpu", compile=True)
    assert model.compiled is None and model.vision_model.run_layer is not None
    assert mini_internvl.load(tmp_path, device="cpu").vision_model.run_layer is None


def test_a_device_it_is_not_for() -> None:
    network: Any = SimpleNamespace(device=torch.device("mps"))
    with pytest.raises(CompileError, match=r"^mps is not compiled for, only cpu and cuda; run without it$"):
        compile_network(network)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("InvalidCxxCompiler: No working C[+]{2} compiler\n\nmore", "No working .* install g[+]{2}"),
        (
            "torch.compile is not supported on Python 9.9+",
            "cpu: torch.compile is not supported .*run without",
        ),
        ("", "RuntimeError; run without it"),
        ("unknown option, known are " + "x, " * 1000, "unknown option"),
    ],
)
def test_a_torch_that_cannot(said: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError(said.replace("[+]{2}", "++"))

    model = load(tmp_path)
    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(CompileError, match=line) as caught:
        compile_network(model, step=True)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert model.compiled is None and model.vision_model.run_layer is None
    answers(model)


@pytest.mark.slow
def test_without_a_compiler_the_run_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    command = [
        "run",
        "-m",
        "mini-internvl-tiny",
        "-t",
        "chartqa@miniature",
        "--limit",
        "2",
        "--device",
        "cpu",
    ]
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert invoke([*command, "--compile", "-o", str(tmp_path / "runs")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "--compile" in line]
    assert "No working C++ compiler" in line and "install g++" in line
    assert not (tmp_path / "runs").exists()
