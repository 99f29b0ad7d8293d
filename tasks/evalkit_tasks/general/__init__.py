"""General vision-language benchmarks."""
