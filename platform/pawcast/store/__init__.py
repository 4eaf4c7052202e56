"""The store: a folder or an S3 bucket behind one small interface, chosen by its URI."""

from pawcast.store.base import Store, open_store, shared_store, warn_if_conditions_are_ignored

__all__ = ["Store", "open_store", "shared_store", "warn_if_conditions_are_ignored"]
