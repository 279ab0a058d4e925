"""Tracking, history, checkpoints, dashboard. Computes no gradients, knows nothing of peers' code."""
