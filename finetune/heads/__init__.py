"""Heads: one file for each shape of example."""
