"""Hyperparameter studies of neural-network compression. README.md says what lives where.

Folders `study` elsewhere on Python's path belong to this package too: a method of one's own needs no change here.
"""

import os
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

# OpenMP reads it when torch is imported. By default a thread that waits for another one spins; where the machine does
# something else as well, as it often does, two threads then take many times as long as one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
