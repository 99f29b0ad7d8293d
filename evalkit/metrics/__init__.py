"""Metric families: one file each, all as sums of per-sample statistics (see base.py)."""
