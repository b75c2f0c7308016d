"""The rows of the table: each module has functions that take a laboratory and sizes, and return figures."""
