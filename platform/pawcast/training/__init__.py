"""Data-parallel training on Ray Train: one worker and many give the same batches and weights."""
