"""From people's own data to records for training, one noun per file."""
