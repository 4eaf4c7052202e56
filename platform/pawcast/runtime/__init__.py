"""The Ray session, and the devices and precisions of this machine."""
