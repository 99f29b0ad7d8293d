"""Benchmark files: where they are, whether they are complete, archives, tables and images."""
