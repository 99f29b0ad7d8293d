"""Run folders: generation is stored before anything is computed from it, and everything else is derived."""

from __future__ import annotations

from evalkit.store.folder import RunFolder, StoredRun, find_runs, load_run, open_for_scoring, open_run
from evalkit.store.records import Scored, image_key, image_reference, open_reference, write_records
from evalkit.store.responses import ResponseLog, ResponseLogs, StoredResponse

__all__ = [
    "ResponseLog",
    "ResponseLogs",
    "RunFolder",
    "Scored",
    "StoredResponse",
    "StoredRun",
    "find_runs",
    "image_key",
    "image_reference",
    "load_run",
    "open_for_scoring",
    "open_reference",
    "open_run",
    "write_records",
]
