"""Data sets by name, as uint8 tensors that are read once and split."""
