"""The pool on a cluster: a Slurm array whose tasks run supervisors."""
