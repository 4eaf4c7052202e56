"""The verbs: each module is one command."""
