"""Predictions of a model version: compiled networks, batches, heat maps, pseudo-labels."""
