"""The pool of one machine: a supervisor that keeps a worker running on every GPU or core."""
