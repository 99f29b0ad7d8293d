"""Evaluation harness: asks benchmarks, scores the answers and compares models; every value has its interval.

    import evalkit

    result = evalkit.run(model="mini-internvl-2b", task="drivelm", data_root="data", limit=100)
    result.metrics["accuracy"].value
    result.records()  # pandas DataFrame, one row a sample

Importing this package imports nothing heavy; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.api import run
    from evalkit.comparison.api import compare
    from evalkit.contracts import (
        Failure,
        Generation,
        ImageHandle,
        ImagePolicy,
        Message,
        MetricValue,
        Model,
        ModelFamily,
        ModelInfo,
        ModelOptions,
        Record,
        Request,
        Response,
        Sample,
        SampleAware,
    )
    from evalkit.data.images import ImageBytes, ImageFile, TableImage, VideoFrame
    from evalkit.errors import EvalkitError
    from evalkit.pipeline.results import RunResult, load_run
    from evalkit.task import (
        DataFile,
        DataSource,
        HubSource,
        JudgeQuestion,
        ParsedAnswer,
        Reference,
        Submission,
        Task,
        record,
    )

_LAZY = {
    "api": ("run",),
    "comparison.api": ("compare",),
    "contracts": (
        *(
            "Failure",
            "Generation",
            "ImageHandle",
            "ImagePolicy",
            "Message",
            "MetricValue",
            "Model",
            "ModelFamily",
        ),
        *("ModelInfo", "ModelOptions", "Record", "Request", "Response", "Sample", "SampleAware"),
    ),
    "errors": ("EvalkitError",),
    "data.images": ("ImageBytes", "ImageFile", "TableImage", "VideoFrame"),
    "pipeline.results": ("RunResult", "load_run"),
    "task": (
        *("DataFile", "DataSource", "HubSource", "JudgeQuestion", "ParsedAnswer", "Reference", "Submission"),
        *("Task", "record"),
    ),
}
_MODULES = {name: module for module, names in _LAZY.items() for name in names}

__all__ = [
    "DataFile",
    "DataSource",
    "EvalkitError",
    "Failure",
    "Generation",
    "HubSource",
    "ImageBytes",
    "ImageFile",
    "ImageHandle",
    "ImagePolicy",
    "JudgeQuestion",
    "Message",
    "MetricValue",
    "Model",
    "ModelFamily",
    "ModelInfo",
    "ModelOptions",
    "ParsedAnswer",
    "Record",
    "Reference",
    "Request",
    "Response",
    "RunResult",
    "Sample",
    "SampleAware",
    "Submission",
    "TableImage",
    "Task",
    "VideoFrame",
    "compare",
    "load_run",
    "record",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from evalkit.installation import VERSION

        return VERSION
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
