"""What is known of the serving system beside the profiles of its requests.

In come records, Prometheus and the state of windows; out go metrics that the spec declares by name,
and what volumes and service levels are judged by.
"""
