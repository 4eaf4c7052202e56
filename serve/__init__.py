"""The Ray Serve application: wiring and HTTP surface around `pawcast.inference`."""
