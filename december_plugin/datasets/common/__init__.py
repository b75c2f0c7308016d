"""What several recording formats share: checked arrays, sessions in memory, chunks of movies, images."""
