"""The HTTP client: needs neither TensorFlow nor Ray."""
