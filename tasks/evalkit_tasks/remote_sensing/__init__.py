"""Remote-sensing benchmarks."""
