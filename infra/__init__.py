"""Infrastructure that Python starts, for demos, tests and trials on one machine."""
