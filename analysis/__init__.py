"""Judge and show studies. `analysis.load("results/NAME")` reads one; nothing here needs Ray or torch."""

from study.results import Study, load

__all__ = ["Study", "load"]
