"""Jobs: what is waiting, which comes next, who holds the lease, and what people do to them."""
