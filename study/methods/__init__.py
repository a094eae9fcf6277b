"""One folder a kind of study."""
