"""Driving benchmarks."""
