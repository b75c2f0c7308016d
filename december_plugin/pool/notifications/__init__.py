"""Messages about failed and poisoned jobs, a finished sweep, and what needs somebody, to a webhook or a command."""
