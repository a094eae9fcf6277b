"""Judge and show studies. `analysis.load("results/NAME")` reads one; nothing here needs Ray or torch."""

import os
import sys
from contextlib import suppress

with suppress(FileNotFoundError):  # as in study/__init__.py, before `study` is looked for
    if sys.argv[:1] == ["-m"] and sys.path[0] == os.getcwd() and not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))

from study.records.study_folder import Study, load  # noqa: E402

__all__ = ["Study", "load"]
