"""The state of jobs, workers and pools: overview, failures, bottlenecks."""
