"""Suites: task names by the table of the paper and by domain."""

from __future__ import annotations

from collections.abc import Mapping

SUITES: Mapping[str, tuple[str, ...]] = {}
