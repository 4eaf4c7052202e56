"""The Ray Serve application: HTTP API, request limits and model management on top of `pawcast`."""
