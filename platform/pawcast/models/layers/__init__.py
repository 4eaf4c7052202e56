"""Layers that behave the same on any number of workers."""
