"""Datasets with a planted, known signal."""
