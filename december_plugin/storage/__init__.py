"""Places for files: folder and S3 stores, their identity, files with checksums that are written as a whole."""
