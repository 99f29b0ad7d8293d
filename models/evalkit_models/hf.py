"""Any image-text model of transformers in this process: `--model hf:HUB-ID|FOLDER`.

The model's own processor makes the input: its chat template and its way of cutting images are part of the
model that is compared, and the signature says so. No code of a repository is run.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from evalkit.errors import ImageError, ModelError, UsageError
from evalkit.near_names import unknown_setting
from evalkit.reasoning import TAGS, decoded_with_tags, opened_by
from evalkit_models.hf_finite import where_it_began
from evalkit_models.hf_inputs import InputMaker, Prompt
from evalkit_models.hf_loading import Loaded, checkpoint_folder, load
from evalkit_models.image_prefetcher import ImagePrefetcher
from evalkit_models.messages import MarksError, messages
from mini_internvl import ImageError as ConversionError
from mini_internvl.errors import NotFiniteError

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEME = "hf:"


class HuggingFaceModel:
    """A loaded model and its processor."""

    def __init__(self, loaded: Loaded, name: str, revision: str | None, batch_size: int | None) -> None:
        self._model = loaded.model
        self._processor = loaded.processor
        self._inputs = InputMaker(loaded.processor)
        self._tokenizer = copy.deepcopy(loaded.processor.tokenizer)  # the other is in use by a thread
        on_gpu = self._model.device.type == "cuda"
        self._batch = batch_size or (
            BATCHING.hf_conversations_on_gpu if on_gpu else BATCHING.hf_conversations_on_cpu
        )
        self._image_token = getattr(loaded.processor, "image_token_id", None)
        self._tags = _special_tags(self._tokenizer)
        self._images = ImagePrefetcher(_open_images)
        self._info = ModelInfo(
            name=name,
            revision=revision,
            fingerprint=loaded.fingerprint,
            weights=loaded.weights,
            dtype=str(self._model.dtype).removeprefix("torch."),
            device=str(self._model.device),
            parameters=sum(weight.numel() for weight in self._model.parameters()),
            inputs="processor",
            settings={
                "architecture": type(self._model).__name__,
                "processor": type(self._processor).__name__,
                "image_processor": type(self._processor.image_processor).__name__,
                "chat_template": hashlib.sha256(loaded.template.encode()).hexdigest()[:12],
            },
        )

    @property
    def info(self) -> ModelInfo:
        """Identity of the checkpoint, and of what makes its input."""
        return self._info

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """Answer batch by batch; what cannot be read or rendered is its requests' error."""
        for generation, alike in groupby(requests, key=lambda request: request.generation):
            rows = 1 if generation.temperature > 0 else self._batch  # a draw must not depend on its batch
            failed: dict[str, Failure] = {}
            for batch, inputs in self._inputs.ahead(self._batches(alike, rows, failed)):
                yield from self._answer(batch, inputs, generation)
            yield from ((name, Response(error=failure)) for name, failure in failed.items())

    def close(self) -> None:
        """End the threads."""
        self._images.close()
        self._inputs.close()

    def _batches(
        self, requests: Iterator[Request], rows: int, failed: dict[str, Failure]
    ) -> Iterator[list[Prompt]]:
        """Prompts of the requests, `rows` at a time; why others have none goes into `failed`."""
        waiting: list[Prompt] = []
        for batch in self._images.batches(requests, rows):
            for request, images in ((r, ready.images) for ready in batch for r in ready.requests):
                prompt = images if isinstance(images, Failure) else self._prompt(request, images)
                if isinstance(prompt, Failure):
                    failed[request.id] = prompt
                    continue
                waiting.append(prompt)
                if len(waiting) == rows:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    def _prompt(self, request: Request, images: Sequence[Image]) -> Prompt | Failure:
        try:
            turns = [{"role": role, "content": _content(parts)} for role, parts in messages(request)]
        except MarksError as error:
            return Failure("prompt", str(error))
        try:
            text = self._processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # the template is a program of the checkpoint's authors
            return Failure("prompt", f"the chat template fails: {_cause(error)}")
        return Prompt(request, text, images)

    def _answer(
        self, batch: Sequence[Prompt], inputs: Future[Any], generation: Generation
    ) -> Iterator[tuple[str, Response]]:
        """Answers of a batch; where it breaks on one conversation, only that one fails."""
        started = time.perf_counter()
        try:
            answers = self._generate(batch, inputs.result(), generation)
        except NotFiniteError as error:
            raise ModelError(
                f"sample {batch[error.place].request.id}: the output of the {error.part} is not finite "
                f"(NaN or infinity): the weights are damaged, or {self._info.dtype} is too small for them "
                "(--dtype float32)"
            ) from None
        except Exception as error:  # processors and models raise nearly anything for images they dislike
            if len(batch) == 1:
                kind = "memory" if type(error).__name__ == "OutOfMemoryError" else "model"
                yield batch[0].request.id, Response(error=Failure(kind, _cause(error)))
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                yield from self._answer(half, self._inputs.begin(half), generation)
            return
        seconds = (time.perf_counter() - started) / len(batch)
        for (request, asked, _), (tokens, prompt, visual) in zip(batch, answers, strict=True):
            opened = opened_by(asked)
            yield request.id, self._response(tokens, opened, prompt, visual, generation, seconds)

    def _generate(
        self, batch: Sequence[Prompt], made: Any, generation: Generation
    ) -> list[tuple[list[int], int, int]]:
        """New tokens, prompt tokens and visual tokens of each conversation."""
        import torch

        from mini_internvl.finite import FiniteBeams

        inputs = made.to(self._model.device, self._model.dtype)
        if generation.temperature > 0:
            torch.manual_seed(batch[0].request.draw_seed)
        with torch.inference_mode():
            check = FiniteBeams(generation.num_beams)
            settings = {**self._settings(generation), "logits_processor": [check]}
            try:
                sequences = self._model.generate(**inputs, **settings)
            except NotFiniteError as error:
                raise NotFiniteError(error.place, where_it_began(self._model, inputs)) from None
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        seen = mask.sum(dim=1).tolist()
        visual = ((ids == self._image_token) & (mask == 1)).sum(dim=1).tolist() if self._image_token else seen
        new = sequences[:, ids.shape[1] :].tolist()
        return [
            (tokens, total - (shown if self._image_token else 0), shown if self._image_token else 0)
            for tokens, total, shown in zip(new, seen, visual, strict=True)
        ]

    def _settings(self, generation: Generation) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "max_new_tokens": generation.max_new_tokens,
            "min_new_tokens": generation.min_new_tokens,
            "num_beams": generation.num_beams,
            "do_sample": generation.temperature > 0,
        }
        if generation.temperature > 0:
            settings |= {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
        if generation.stop:
            settings |= {"stop_strings": list(generation.stop), "tokenizer": self._tokenizer}
        return settings

    def _response(
        self,
        tokens: list[int],
        opened: str,
        prompt: int,
        visual: int,
        generation: Generation,
        seconds: float,
    ) -> Response:
        """The response of new tokens; `opened` is the think tag that the template wrote for the answer."""
        ends = self._model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        place = next((place for place, token in enumerate(tokens) if token in ends), None)
        kept = tokens if place is None else tokens[:place]
        pad = self._model.generation_config.pad_token_id
        while place is None and kept and kept[-1] == pad:  # after a stop text, which is not a token
            kept.pop()
        decode = partial(self._tokenizer.decode, skip_special_tokens=True)
        text = opened + decoded_with_tags(kept, self._tags, decode)
        cuts = [at for mark in generation.stop if (at := text.find(mark)) >= 0]
        ended = place is not None or bool(cuts)
        return Response(
            text=text[: min(cuts)] if cuts else text,
            finish="stop" if ended else "length",
            prompt_tokens=prompt,
            visual_tokens=visual,
            new_tokens=len(kept) + (place is not None),
            seconds=seconds,
        )


def _special_tags(tokenizer: Any) -> dict[int, str]:
    """Think tags that are special tokens of a tokenizer, by id: decoding must not leave them out."""
    special = set(tokenizer.all_special_ids)
    special |= {int(number) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = {tokenizer.convert_tokens_to_ids(tag): tag for pair in TAGS for tag in pair}
    return {
        number: tag for number, tag in ids.items() if number in special and number != tokenizer.unk_token_id
    }


def _open_images(request: Request) -> Sequence[Image] | Failure:
    from mini_internvl import open_image

    try:
        return [open_image(image.open()) for image in request.images]
    except (ImageError, ConversionError) as error:
        return Failure("image", str(error))
    except MemoryError:
        return Failure("memory", f"the images of {request.id!r} do not fit into memory")


def _content(parts: Sequence[str | int]) -> list[dict[str, str]]:
    return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


class HuggingFaceFamily:
    """Finds `hf:HUB-ID` and `hf:FOLDER`."""

    unused = ("base_url", "compile")

    def names(self) -> Sequence[str]:
        """The scheme."""
        return (f"{SCHEME}HUB-ID|FOLDER",)

    def matches(self, spec: str) -> bool:
        """Whether `spec` begins with the scheme."""
        return spec.startswith(SCHEME)

    def load(self, spec: str, options: ModelOptions) -> Model:
        """Load the checkpoint; `--checkpoint DIR` takes it from there under the same name.

        Raises:
            UsageError: a flag that has no meaning here. CheckpointError: missing, refused, of another kind.
        """
        name = spec.removeprefix(SCHEME)
        if not name:
            raise UsageError(f"--model {SCHEME}: give a hub id or a folder, {SCHEME}OWNER/NAME")
        if options.base_url:
            raise UsageError(f"--base-url has no meaning with {spec}, which runs in this process")
        if options.compile:
            raise UsageError(f"--compile has no meaning with {spec}: only Mini-InternVL is compiled")
        if options.template != "auto":
            raise UsageError(f"--template has no meaning with {spec}: its processor writes the conversations")
        if options.extra:
            raise unknown_setting("--gen", next(iter(options.extra)), GENERATION_FIELDS, "generation")
        folder, commit = checkpoint_folder(options.checkpoint or name, options.revision, options.offline)
        loaded = load(spec, folder, options.dtype, options.device)
        shown = Path(name).expanduser().resolve().name if Path(name).expanduser().is_dir() else name
        if options.checkpoint:
            shown = f"{shown}@{folder.resolve().name}"
        return HuggingFaceModel(loaded, f"{SCHEME}{shown}", commit, options.batch_size)


FAMILY = HuggingFaceFamily()
