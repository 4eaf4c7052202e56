"""Data-parallel training on Ray Train: N workers train as one.

They compute the same batches, augmentation and dropout, and equal weights up to rounding.
"""
