"""Distillation, then soft weight-sharing."""
