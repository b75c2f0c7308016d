"""One worker process: claims a job, computes it with a heartbeat and checkpoints, and stores it."""
