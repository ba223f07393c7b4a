"""Bundles as files that work without this project."""
