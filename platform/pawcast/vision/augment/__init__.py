"""Augmentation of training photos: parameters drawn statelessly, applied as one warp."""
