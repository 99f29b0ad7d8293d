"""Kills, full disks and hostile inputs, from a seed: `make campaign MINUTES=10` (docs/reliability.md)."""
