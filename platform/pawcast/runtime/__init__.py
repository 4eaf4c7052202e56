"""The Ray session, TensorFlow, and the devices and precisions of this machine."""
