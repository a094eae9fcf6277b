"""Networks by name."""

from study.models.registry import build

__all__ = ["build"]
