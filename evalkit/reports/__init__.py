"""Runs and comparisons as text for people, Markdown for pull requests, JUnit for the test tab of a CI system."""
