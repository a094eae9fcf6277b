"""Networks by name."""

from study.models.registry import build as build
