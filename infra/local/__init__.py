"""A private Ray, an S3 server and drawn photos, on this machine."""
