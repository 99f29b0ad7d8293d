"""The Mini-InternVL of this repository as a model of evalkit.

Images are decoded and tiled by threads ahead of the accelerator, once for each group of the plan.
Prompts of a group hold the same `Tiled`, by which `mini_internvl` shares the work on them; it also halves a
batch that does not fit into the memory.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.batch_config import BATCHING
from evalkit.contracts import (
    GENERATION_FIELDS,
    Failure,
    Generation,
    Model,
    ModelInfo,
    ModelOptions,
    Request,
    Response,
)
from evalkit.errors import CheckpointError, ImageError, ModelError, UsageError
from evalkit.near_names import unknown_setting
from evalkit_models.costs import costs
from evalkit_models.image_prefetcher import ImagePrefetcher, Prefetched
from mini_internvl import (
    NETWORK_BATCHING,
    RELEASES,
    CompileError,
    DeviceError,
    MiniInternVLError,
    OutOfMemory,
    find_release,
)
from mini_internvl import ImageError as TilingError
from mini_internvl.errors import NotFiniteError

if TYPE_CHECKING:
    from evalkit.pipeline.cost_estimate import Costs
    from mini_internvl import Answer, ChatModel, GenerationSettings, Prompt, Tiled


class MiniInternVLModel:
    """A loaded checkpoint that answers requests."""

    def __init__(self, network: ChatModel, name: str, options: ModelOptions) -> None:
        self._network = network
        parameters = sum(weight.numel() for weight in network.parameters())
        self._batch = options.batch_size or BATCHING.conversations(network.device.type, parameters)
        network.plan_batches(share=options.prefix_caching, most_rows=options.batch_size)
        self._images = ImagePrefetcher(self._tile)
        self._info = ModelInfo(
            name=name,
            revision=network.revision,
            fingerprint=network.fingerprint,
            weights=network.weights_fingerprint,
            dtype="int8" if network.int8 else str(network.dtype).removeprefix("torch."),
            device=str(network.device),
            parameters=parameters,
            settings={
                "image_size": network.config.image_size,
                "tokens_per_tile": network.config.num_image_token,
                "template": network.template.name,
                "system_message": network.system_message,
                "dynamic_image_size": network.config.dynamic_image_size,
                "thumbnail": network.config.use_thumbnail,
            },
            template=_unusual_template(network),
            notes=("untrained: random weights, the answers mean nothing",) if network.untrained else (),
        )

    @property
    def info(self) -> ModelInfo:
        """Identity of the checkpoint."""
        return self._info

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """Answer batch by batch; an unreadable image is its requests' error."""
        for generation, alike in groupby(requests, key=_without_seed):
            settings = _settings(generation)
            for batch in self._images.batches(alike, self._batch):
                yield from self._answer(batch, settings)

    def close(self) -> None:
        """End the threads."""
        self._images.close()

    def _tile(self, request: Request) -> Tiled | Failure:
        policy = request.image_policy
        try:
            return self._network.tile(
                [image.open() for image in request.images],
                min_tiles=policy.min_tiles,
                max_tiles=policy.max_tiles,
                thumbnail=policy.thumbnail,
                grid=policy.grid,
                total_tiles=policy.total_tiles,
            )
        except (ImageError, TilingError) as error:
            return Failure("image", str(error))
        except MemoryError:
            return Failure("memory", f"the images of {request.id!r} do not fit into memory")

    def _render(self, request: Request, tiled: Tiled | Failure) -> Prompt | Failure:
        if isinstance(tiled, Failure):
            return tiled
        system, history, question = _turns(request)
        try:
            return self._network.render(tiled, question, history, system_message=system)
        except MiniInternVLError as error:
            return Failure("prompt", str(error))

    def _answer(
        self, batch: Sequence[Prefetched[Tiled]], settings: GenerationSettings
    ) -> Iterator[tuple[str, Response]]:
        prompts: list[tuple[Request, Prompt]] = []
        for request, tiled in ((request, ready.images) for ready in batch for request in ready.requests):
            prompt = self._render(request, tiled)
            if isinstance(prompt, Failure):
                yield request.id, Response(error=prompt)
            else:
                prompts.append((request, dataclasses.replace(prompt, seed=request.draw_seed)))
        if not prompts:
            return
        started = time.perf_counter()
        try:
            answers = self._network.answer_each([prompt for _, prompt in prompts], settings)
        except NotFiniteError as error:
            raise ModelError(
                f"sample {prompts[error.place][0].id}: {error}: the weights are damaged, or "
                f"{self._info.dtype} is too small for them (--dtype float32)"
            ) from None
        seconds = (time.perf_counter() - started) / len(prompts)
        for (request, _), answer in zip(prompts, answers, strict=True):
            yield request.id, _response(answer, seconds)


def _without_seed(request: Request) -> Generation:
    """What requests of one batch have in common: each may draw with a seed of its own."""
    return dataclasses.replace(request.generation, seed=0)


def _unusual_template(network: ChatModel) -> str | None:
    """The prompt's name, where it is not the one that a checkpoint in the released layout names."""
    from mini_internvl import read_config

    native = network.folder is not None and read_config(network.folder)[1]
    return network.template.name if native or network.template.name != network.config.template else None


def _settings(generation: Generation) -> GenerationSettings:
    from mini_internvl import GenerationSettings

    return GenerationSettings(
        max_new_tokens=generation.max_new_tokens,
        min_new_tokens=generation.min_new_tokens,
        temperature=generation.temperature,
        top_p=generation.top_p,
        num_beams=generation.num_beams,
        stop=generation.stop,
    )


def _turns(request: Request) -> tuple[str | None, list[tuple[str, str]], str]:
    """System message or None, (question, answer) pairs so far, and the last question."""
    messages = list(request.messages)
    system = messages.pop(0).text if messages and messages[0].role == "system" else None
    *earlier, last = messages
    texts = [message.text for message in earlier]
    return system, list(zip(texts[::2], texts[1::2], strict=True)), last.text


def _response(answer: Answer | MiniInternVLError, seconds: float) -> Response:
    if isinstance(answer, MiniInternVLError):
        kind = "memory" if isinstance(answer, OutOfMemory) else "model"
        return Response(error=Failure(kind, str(answer)))
    return Response(
        text=answer.text,
        finish=answer.finish,
        prompt_tokens=answer.prompt_tokens,
        visual_tokens=answer.visual_tokens,
        new_tokens=answer.new_tokens,
        seconds=seconds,
    )


class MiniInternVLFamily:
    """Finds released names, checkpoint folders and hub ids."""

    unused = ("base_url",)

    def names(self) -> Sequence[str]:
        """Short names of the released checkpoints."""
        return tuple(RELEASES)

    def matches(self, spec: str) -> bool:
        """A released name or hub id, a folder, or anything written like a hub id."""
        if ":" in spec:
            return False
        if find_release(spec) is not None or Path(spec).expanduser().is_dir():
            return True
        owner, slash, name = spec.partition("/")
        return bool(owner and slash and name) and "/" not in name and not spec.startswith((".", "~"))

    def costs(self, spec: str, checkpoint: str | None) -> Costs | None:
        """What the model takes, for the estimates of a dry run."""
        return costs(spec, checkpoint)

    def batching(self) -> Mapping[str, float]:
        """The numbers by which the network batches, for a dry run."""
        return NETWORK_BATCHING.to_json()

    def load(self, spec: str, options: ModelOptions, name: str | None = None) -> Model:
        """Load the checkpoint; `--checkpoint DIR` takes the weights from there under the same name.

        Args:
            name: what reports call it, in place of a name made of `spec`.

        Raises:
            UsageError: a flag that an in-process model, or this machine, cannot honour.
            CheckpointError: see `mini_internvl.load`.
        """
        if options.base_url:
            raise UsageError(f"--base-url has no meaning with {spec}, which runs in this process")
        if options.extra:
            raise unknown_setting("--gen", next(iter(options.extra)), GENERATION_FIELDS, "generation")
        import mini_internvl

        previous = os.environ.get("HF_HUB_OFFLINE")
        if options.offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            network = mini_internvl.load(
                spec,
                revision=options.revision,
                dtype=options.dtype,
                device=options.device,
                folder=options.checkpoint,
                compile=options.compile,
                template=options.template,
            )
        except CompileError as error:
            raise UsageError(f"--compile: {error}") from error
        except DeviceError as error:
            raise UsageError(f"--device: {error}") from error
        except MiniInternVLError as error:
            raise CheckpointError(str(error)) from error
        finally:
            if options.offline and previous is None:
                del os.environ["HF_HUB_OFFLINE"]
        return MiniInternVLModel(network, name or _name(spec, options), options)


TRAINING = "training.json"
"""In the folder of a training: its name."""


def _name(spec: str, options: ModelOptions) -> str:
    """What reports call the model: the released name, or what the user wrote; folders by their last parts.

    A checkpoint in the folder of a training is named by it: `mine@final`.
    """
    release = find_release(spec)
    name = release.name if release is not None else spec
    folder = Path(spec).expanduser()
    if release is None and folder.is_dir():
        name = _trained(folder.resolve()) or folder.resolve().name
    if not options.checkpoint:
        return name
    checkpoint = Path(options.checkpoint).resolve()
    return _trained(checkpoint) or f"{name}@{checkpoint.name}"


def _trained(checkpoint: Path) -> str | None:
    """`<training>@<folder>` of a checkpoint of a training."""
    path = checkpoint.parent / TRAINING
    if not path.is_file():
        return None
    try:
        training = json.loads(path.read_text(encoding="utf-8"))["name"]
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); it names the training") from None
    return f"{training}@{checkpoint.name}"


FAMILY = MiniInternVLFamily()
