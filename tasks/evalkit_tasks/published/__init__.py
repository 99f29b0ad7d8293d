"""The paper's rows as data."""
