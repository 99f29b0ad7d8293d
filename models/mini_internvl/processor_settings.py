"""Settings of the image processor in a native folder: those of Mini-InternVL, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mini_internvl.config import MiniInternVLConfig, read_json
from mini_internvl.errors import ConfigError

FILES = ("processor_config.json", "preprocessor_config.json")

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BICUBIC = 3


def check_processor(folder: Path, config: MiniInternVLConfig) -> None:
    """Compares the image processor of a native folder with what this package does to images.

    The number of tiles is not compared: the protocol of a benchmark sets it.

    Raises:
        ConfigError: names the file, the setting, its value and the only one that is supported.
    """
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            _check_file(path, config)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: holds a setting of another type ({error})") from error


def _check_file(path: Path, config: MiniInternVLConfig) -> None:
    raw = read_json(path)
    _check(path, "image_seq_length", raw.get("image_seq_length"), config.num_image_token)
    inner = raw.get("image_processor")
    images = inner if isinstance(inner, Mapping) else raw if path.name == FILES[1] else {}
    for switch in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        _check(path, switch, images.get(switch), True)
    size = images.get("size")
    if isinstance(size, Mapping):
        for side in ("height", "width"):
            _check(path, f"size.{side}", size.get(side), config.image_size)
    _check(path, "resample", images.get("resample"), _BICUBIC)
    _check(path, "rescale_factor", images.get("rescale_factor"), 1 / 255)
    for key, wanted in (("image_mean", _MEAN), ("image_std", _STD)):
        values = images.get(key)
        if values is not None and not _equal(values, wanted):
            raise _differs(path, key, values, list(wanted))


def _check(path: Path, key: str, value: Any, wanted: Any) -> None:
    if value is not None and abs(float(value) - float(wanted)) > 1e-6:
        raise _differs(path, key, value, wanted)


def _equal(values: Any, wanted: tuple[float, ...]) -> bool:
    return len(values) == len(wanted) and all(
        abs(float(a) - b) < 1e-6 for a, b in zip(values, wanted, strict=True)
    )


def _differs(path: Path, key: str, value: Any, wanted: Any) -> ConfigError:
    return ConfigError(f"{path}: {key} {value!r} is not supported, only {wanted}")
