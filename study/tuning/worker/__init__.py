"""What Ray's processes on this machine import when they start. This folder alone is on their path before Python's own
modules, so it holds nothing else."""
