"""What the command line changes of a protocol's settings; a changed run is marked non-standard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalkit.contracts import Generation, Json, Request
from evalkit.errors import UsageError
from evalkit.key_values import split_items

_KINDS: dict[str, type] = {name: type(value) for name, value in dataclasses.asdict(Generation()).items()}


@dataclass(frozen=True, slots=True)
class Overrides:
    """Settings given by the user in place of the protocol's.

    Attributes:
        max_tiles: bound of the tile grid. generation: fields of `Generation`.
        seed: used by sampling only; alone it overrides nothing.
    """

    max_tiles: int | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def apply(self, request: Request) -> Request:
        """The request with these settings."""
        generation, policy = request.generation, request.image_policy
        if self.generation:
            generation = dataclasses.replace(generation, **self.generation)
        if generation.temperature > 0 and "seed" not in self.generation:
            generation = dataclasses.replace(generation, seed=self.seed)
        if self.max_tiles is not None:
            least = min(policy.min_tiles, self.max_tiles)
            policy = dataclasses.replace(policy, min_tiles=least, max_tiles=self.max_tiles)
        if generation is request.generation and policy is request.image_policy:
            return request
        return dataclasses.replace(request, generation=generation, image_policy=policy)

    def _draws(self, request: Request) -> bool:
        return self.apply(request).generation.temperature > 0

    def changed(self, requests: Iterable[Request]) -> dict[str, Json]:
        """Which of the settings differ from the protocol's in any request, by name.

        The seed of a drawn answer is none of them, whichever flag it was given by.
        """
        given: dict[str, Json] = dict(self.generation)
        if self.max_tiles is not None:
            given["max_tiles"] = self.max_tiles
        if not given:
            return {}
        found: set[str] = set()
        for request in requests:
            found.update(
                name
                for name, value in given.items()
                if _standard(request, name) != value and not (name == "seed" and self._draws(request))
            )
            if len(found) == len(given):
                break
        return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items() if name in found}


def _standard(request: Request, name: str) -> Json:
    return request.image_policy.max_tiles if name == "max_tiles" else getattr(request.generation, name)


def parse_gen(items: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """`--gen KEY=VALUE` items as fields of `Generation` and as options of the model.

    Raises:
        UsageError: no `=`, or a value of the wrong kind.
    """
    generation: dict[str, Any] = {}
    extra: dict[str, str] = {}
    for name, text in split_items(items).items():
        if name in _KINDS:
            generation[name] = _value(name, text)
        else:
            extra[name] = text
    return generation, extra


def _value(name: str, text: str) -> Any:
    kind = _KINDS[name]
    if kind is tuple:
        return (text,)
    try:
        value = kind(text)
    except ValueError:
        raise UsageError(f"--gen {name}={text}: not a number") from None
    least = 1 if name in ("max_new_tokens", "num_beams") else 0
    if not value >= least or value == float("inf"):
        raise UsageError(f"--gen {name}={text}: must be {least} or more")
    if name == "top_p" and not 0 < value <= 1:
        raise UsageError(f"--gen top_p={text}: must be above 0 and at most 1")
    return value
