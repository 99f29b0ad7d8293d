"""Any OpenAI-compatible server as a model: `--model openai:NAME --base-url URL`.

vLLM, SGLang, LMDeploy, `transformers serve` and cloud services speak this protocol. Our messages go
there with their images as data URLs. The server's own template and tiling turn them into tokens.
"""

from __future__ import annotations

import base64
import io
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.batch_config import BATCHING
from evalkit.contracts import (
    Failure,
    FinishReason,
    Generation,
    Json,
    Model,
    ModelInfo,
    ModelOptions,
    Request,
    Response,
)
from evalkit.errors import BudgetError, ImageError, ServerError, UsageError
from evalkit.openai_client import ChatApi, find_key, in_threads, is_azure, patiently
from evalkit.openai_reply import WITHHELD, Completion, HopelessError, RefusedError, TryAgainError
from evalkit.registry import nearest
from evalkit_models import sending
from evalkit_models.image_prefetcher import ImagePrefetcher
from evalkit_models.messages import MarksError, messages
from evalkit_models.sending import OutOfBudgetError, Sender
from evalkit_models.server_settings import FREE, ServerSettings
from mini_internvl import ImageError as NetworkImageError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

SCHEME = "openai:"
KEY_VARIABLE = "OPENAI_API_KEY"
#: Azure's own name for it, read before for an address of Azure.
AZURE_KEY_VARIABLE = "AZURE_OPENAI_API_KEY"

#: Requests in a row that failed for good before the server counts as dead.
PATIENCE = 50

#: Most visual tokens of an image: 12 tiles and a thumbnail of 256, or one for each patch of 14 pixels.
_TILED, _PATCH = 13 * 256, 14 * 14
#: Tokens that a chat template may put around a message.
_AROUND = 32

_FINISH: Mapping[str, FinishReason] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence"), "stop"),
    **dict.fromkeys(("length", "max_tokens"), "length"),
}


@dataclass(frozen=True, slots=True)
class _EncodedImage:
    """An image as it is sent: its data URL, and its most visual tokens."""

    url: str
    most_tokens: int


class ServedModel:
    """A model behind a server.

    Args:
        api: the server. name: the model's name there.
        workers: requests under way at once.
    """

    def __init__(
        self, api: ChatApi, name: str, settings: ServerSettings, workers: int = BATCHING.served_requests
    ) -> None:
        self._api = api
        self._name = name
        self._settings = settings
        self._workers = workers
        self._stop = threading.Event()
        self._sender = Sender(api, settings, self._stop)
        self._budget = self._sender.budget
        self._images = ImagePrefetcher(self._encode_all)
        self._failed_in_a_row = 0
        quality, form = settings.jpeg_quality, settings.form.to_json()
        unsent = settings.form.omit
        said = (f"served: {', '.join(unsent)} not sent, the server's own hold",) if unsent else ()
        self._info = ModelInfo(
            name=f"{SCHEME}{name}",
            engine="server",
            inputs="server",
            free_options=FREE,
            settings={
                "base_url": api.base,
                "pictures": f"jpeg:{quality}" if quality else "png",
                **({"request": form} if form else {}),
            },
            notes=("served: template and tiling are the server's own", *said),
            unsent=unsent,
        )

    @property
    def info(self) -> ModelInfo:
        """Name and address; only the server knows which weights it has loaded."""
        return self._info

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """Answers as the server gives them.

        Raises:
            BudgetError: the next request could overrun the budget; every request sent is answered first.
            ServerError: address, key or model name is wrong, or the server is dead.
            UsageError: a setting that the protocol cannot carry.
        """
        for request in requests:
            _check(request.generation)
        for (request, _), outcome in in_threads(
            lambda asked: self._ask(*asked), self._prepared(requests), self._workers, "served"
        ):
            if outcome is not None:
                response, at_fault = outcome
                self._count_failures(response, at_fault)
                yield request.id, response
        if price := self._sender.price():
            log.info("%s: %s", self._info.name, price)
        if self._budget.exhausted:
            raise BudgetError(
                f"{self._info.name}: {self._budget.exhausted} ({self._budget.sent:,} requests sent); run "
                "the same command again to go on with a new budget"
            )

    def line(self) -> str:
        """What sending again has cost so far."""
        return self._sender.price()

    def report(self) -> Mapping[str, Json]:
        """Requests and tokens, for the manifest."""
        return self._sender.report()

    def close(self) -> None:
        """Stop the threads and what they wait for."""
        self._stop.set()
        self._images.close()

    def check_name(self) -> None:
        """Warn if the server's list lacks the name.

        Raises:
            ServerError: the server cannot be reached or refuses.
        """
        try:
            listed = patiently(self._api.models, min(3, self._settings.attempts), sending.BACKOFF, self._stop)
        except HopelessError as error:
            if str(error).startswith(("HTTP 401", "HTTP 403")):
                raise self._hopeless(error) from None
            return  # a server may have no such list
        except RefusedError:
            return
        except TryAgainError as error:
            if error.reached:
                return
            said = str(error)
            fix = "" if "certificate" in said else "; start the server or fix the address"
            raise ServerError(f"--base-url {self._api.address}: cannot be reached ({said}){fix}") from None
        if listed and self._name not in listed:
            hint = nearest(self._name, listed) or f" (it lists {', '.join(listed[:3])})"
            log.warning("%s: the server does not list this model%s", self._info.name, hint)

    def _prepared(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[Request, Sequence[_EncodedImage] | Failure]]:
        """Requests with their images, until the budget is used up."""
        for batch in self._images.batches(requests, 1):
            for ready in batch:
                for request in ready.requests:
                    if self._budget.exhausted:
                        return
                    yield request, ready.images

    def _encode_all(self, request: Request) -> Sequence[_EncodedImage] | Failure:
        from mini_internvl import open_image

        try:
            return [self._encode(open_image(image.open())) for image in request.images]
        except (ImageError, NetworkImageError) as error:
            return Failure("image", str(error))
        except MemoryError:
            return Failure("memory", f"the images of {request.id!r} do not fit into memory")

    def _encode(self, image: Image) -> _EncodedImage:
        quality = self._settings.jpeg_quality
        buffer = io.BytesIO()
        if quality:
            image.save(buffer, "JPEG", quality=quality)
        else:
            image.save(buffer, "PNG", compress_level=1)
        kind = "jpeg" if quality else "png"
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        return _EncodedImage(
            f"data:image/{kind};base64,{data}", max(_TILED, image.width * image.height // _PATCH)
        )

    def _ask(
        self, request: Request, images: Sequence[_EncodedImage] | Failure
    ) -> tuple[Response, bool] | None:
        """The answer, and whether the server is at fault; None if the budget does not allow the request.

        Runs in a worker's thread.
        """
        if isinstance(images, Failure):
            return Response(error=images), False
        try:
            body = self._body(request, images)
        except MarksError as error:
            return Response(error=Failure("prompt", str(error))), False
        try:
            answer, seconds = self._sender.send(body, self._most_tokens(request, images))
        except TryAgainError as error:
            return Response(error=Failure("server", str(error))), True
        except RefusedError as error:
            return Response(error=Failure(error.kind, str(error))), not error.understood
        except HopelessError as error:
            raise self._hopeless(error) from None
        except OutOfBudgetError:
            return None
        return _response(answer, request.generation, seconds), False

    def _body(self, request: Request, images: Sequence[_EncodedImage]) -> dict[str, Any]:
        """What is sent. Raises MarksError."""
        said: list[dict[str, Any]] = []
        for role, parts in messages(request):
            content: Any = "".join(part for part in parts if isinstance(part, str))
            if any(isinstance(part, int) for part in parts):
                content = [
                    {"type": "text", "text": part}
                    if isinstance(part, str)
                    else {"type": "image_url", "image_url": {"url": images[part].url}}
                    for part in parts
                ]
            said.append({"role": role, "content": content})
        generation = request.generation
        settings: dict[str, Any] = {
            "max_tokens": generation.max_new_tokens,
            "temperature": generation.temperature,
            "seed": request.draw_seed if generation.temperature > 0 else generation.seed,
        }
        if generation.temperature > 0:
            settings["top_p"] = generation.top_p
        if generation.stop and self._settings.send_stop:
            settings["stop"] = list(generation.stop)
        return self._settings.form.body(self._name, said, settings)

    def _most_tokens(self, request: Request, images: Sequence[_EncodedImage]) -> int:
        """No request takes more: a token is at least one byte of text."""
        texts = sum(len(message.text.encode("utf-8", "replace")) + _AROUND for message in request.messages)
        return texts + sum(image.most_tokens for image in images) + request.generation.max_new_tokens

    def _count_failures(self, response: Response, at_fault: bool) -> None:
        if at_fault:
            self._failed_in_a_row += 1
        elif response.error is None or response.error.kind in WITHHELD:
            self._failed_in_a_row = 0
        if self._failed_in_a_row >= PATIENCE and response.error is not None:
            raise ServerError(
                f"{self._info.name} at {self._api.address}: {PATIENCE} requests in a row failed, last: "
                f"{response.error.message}; fix the server, then run the same command again"
            )

    def _hopeless(self, error: HopelessError) -> ServerError:
        return ServerError(
            f"{self._info.name} at {self._api.address}: {error}; check --base-url (it often ends with /v1), "
            f"the model's name and the key in {KEY_VARIABLE}"
        )


def _response(answer: Completion, generation: Generation, seconds: float) -> Response:
    new_tokens = answer.new_tokens or 0
    finish = _FINISH.get(answer.finish or "")
    if finish is None and new_tokens >= generation.max_new_tokens:
        finish = "length"
    text = answer.text
    places = [place for mark in generation.stop if (place := text.find(mark)) >= 0]
    if places:
        text, finish = text[: min(places)], "stop"
    prompt_tokens = answer.prompt_tokens or 0
    return Response(text, finish, prompt_tokens, 0, new_tokens, seconds, reasoning=answer.reasoning)


def _check(generation: Generation) -> None:
    """Raises UsageError for a setting that the protocol cannot carry."""
    if generation.num_beams > 1:
        raise UsageError(
            f"{SCHEME}NAME: this protocol has no beam search, but num_beams={generation.num_beams} is set; "
            "--gen num_beams=1 decodes greedily (non-standard)"
        )
    if generation.min_new_tokens > 1:
        raise UsageError(
            f"{SCHEME}NAME: this protocol has no minimum length, but min_new_tokens="
            f"{generation.min_new_tokens} is set; --gen min_new_tokens=1 leaves it out (non-standard)"
        )


class ServedFamily:
    """Finds `openai:NAME`.

    Attributes:
        served: its models run elsewhere, so workers on this machine or on Ray have no meaning.
    """

    served = True
    unused = ("compile", "device", "devices", "engine", "prefix_caching")

    def names(self) -> Sequence[str]:
        """The scheme."""
        return (f"{SCHEME}NAME",)

    def matches(self, spec: str) -> bool:
        """Whether `spec` begins with the scheme."""
        return spec.startswith(SCHEME)

    def load(self, spec: str, options: ModelOptions) -> Model:
        """Check that the server is there; nothing is loaded.

        Raises:
            UsageError: a setting that cannot be sent. ServerError: the server cannot be reached or refuses.
        """
        name = spec.removeprefix(SCHEME)
        if not name:
            raise UsageError(f"--model {SCHEME}: give the model's name at the server, {SCHEME}NAME")
        if not options.base_url:
            raise UsageError(f"--model {spec}: needs --base-url URL, such as http://localhost:8000/v1")
        refused: dict[str, object] = {"checkpoint": None, "revision": None, "dtype": "auto"}
        refused |= {"device": "auto", "template": "auto", "compile": False, "prefix_caching": True}
        for flag, default in refused.items():
            if getattr(options, flag) != default:
                shown = "no-prefix-caching" if flag == "prefix_caching" else flag
                raise UsageError(f"--{shown} has no meaning with {spec}: the server decides")
        settings = ServerSettings.parse(name, options.extra)
        try:
            names = (AZURE_KEY_VARIABLE, KEY_VARIABLE) if is_azure(options.base_url) else (KEY_VARIABLE,)
            api = ChatApi(options.base_url, find_key(names), settings.timeout, settings.form.extra_headers)
        except ServerError as error:
            raise UsageError(f"--base-url: {error}") from None
        model = ServedModel(api, name, settings, options.batch_size or BATCHING.served_requests)
        try:
            model.check_name()
        except BaseException:
            model.close()
            raise
        return model


FAMILY = ServedFamily()
