"""Messages to a webhook or a command: failed and poisoned jobs, a finished sweep, and what needs attention."""
