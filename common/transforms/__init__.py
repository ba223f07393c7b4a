"""Transforms that MONAI lacks, each as an array version and a dictionary version where both have users."""
