"""Figures, pages and the methods section; arrays in, text out."""
