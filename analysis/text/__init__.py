"""The report's sentences and tables."""
