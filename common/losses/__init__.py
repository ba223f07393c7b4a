"""Losses, each with the equation of its paper."""
