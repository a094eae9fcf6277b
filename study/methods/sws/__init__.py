"""Soft weight-sharing."""
