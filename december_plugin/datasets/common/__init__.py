"""Shared by several recording formats: checked arrays, sessions in memory, chunks of movies, images."""
