"""The routes. `api.py` registers them."""
