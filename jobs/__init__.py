"""The commands: each module is one, and `cli` is all of them as `pawcast`."""
