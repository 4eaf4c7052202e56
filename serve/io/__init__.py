"""Request bodies and codecs."""
