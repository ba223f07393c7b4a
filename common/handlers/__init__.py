"""Ignite handlers: what happens around training and inference."""
