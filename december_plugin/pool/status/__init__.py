"""What can be said about jobs, workers and pools: overview, failures, bottlenecks."""
