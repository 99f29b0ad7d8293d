"""Drawn miniatures of the benchmarks in their official file formats, by seeded code."""
