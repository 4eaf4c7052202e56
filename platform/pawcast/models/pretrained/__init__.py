"""Weights trained elsewhere: `source` reads the file, `loader` puts it into a network."""
