"""Hyperparameter studies of neural-network compression. README.md says what lives where.

Folders `study` elsewhere on Python's path belong to this package too: a method of one's own needs no change here.
"""

import os
import sys
from contextlib import suppress
from pkgutil import extend_path

# A command, `python -m`, looks for every module in the current folder first. A file there that happens to be called
# random.py or analysis.py must not stand in for Python's or ours: the folder comes last.
with suppress(FileNotFoundError):  # the current folder may have been removed
    if sys.argv[:1] == ["-m"] and sys.path[0] == os.getcwd() and not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))

__path__ = extend_path(__path__, __name__)

# OpenMP reads it when torch is imported. By default a thread that waits for another one spins; where the machine does
# something else as well, as it often does, two threads then take many times as long as one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
