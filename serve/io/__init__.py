"""Request bodies, and the codec of the Open Inference Protocol."""
