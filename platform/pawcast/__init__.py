"""Pawcast: distributed training and serving for image classification on Ray."""

__version__ = "0.1.0"
