"""What one command does, in this order: preflight, metadata, shared work, search, final test, fresh seeds."""
