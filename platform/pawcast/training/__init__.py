"""Data-parallel training on Ray Train: the same batches, warps and weights on one worker or many."""
