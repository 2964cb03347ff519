"""What a spec declares of the serving system: shares of its requests, and numbers of Prometheus."""
