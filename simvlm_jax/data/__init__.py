"""Records in, batches out. It knows no model."""
