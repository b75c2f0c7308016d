"""Text in and out: YAML that people write, user text on its way into the database, numbers in words, the terminal."""
