"""What runs on one machine: a private Ray, a private S3 server, and drawn photos."""
