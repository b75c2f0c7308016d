"""What the frames say: comparisons, criteria, and the verdict in plain words. No database."""
