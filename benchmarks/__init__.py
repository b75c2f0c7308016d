"""Speed and memory beside other ways to do the same: one script for each subject, and what needs a GPU in ``gpu``."""
