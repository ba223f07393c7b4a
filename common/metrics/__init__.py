"""Metrics: a computing function that stands alone, and what wraps it."""
