"""A run from its options to its summary: job, plan, generate, score, summary, manifest, reproduce."""
