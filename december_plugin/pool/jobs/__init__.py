"""Jobs: what is waiting, which job comes next, who holds its lease, and how users retry or ignore it."""
