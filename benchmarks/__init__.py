"""Speed and memory compared with other ways to do the same: one script for each subject; ``gpu`` needs a GPU."""
