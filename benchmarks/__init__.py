"""Measurements of speed: each compares with the way the paper or a peer does the same."""
