"""Runs and comparisons as text for people, Markdown for pull requests, JUnit for CI systems."""
