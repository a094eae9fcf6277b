"""Networks whose weights share a few values: sizes, training of the values, and the compressed file."""
