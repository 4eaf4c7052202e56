"""HTTP routes, one module a surface."""
