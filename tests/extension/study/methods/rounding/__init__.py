"""Rounding, a method outside the package."""
