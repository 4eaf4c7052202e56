"""The store: a folder or S3 behind one small interface, chosen by URI."""

from pawcast.store.base import Store, open_store, shared_store

__all__ = ["Store", "open_store", "shared_store"]
