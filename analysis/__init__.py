"""Judge and show studies. `analysis.load("results/NAME")` reads one; nothing here needs Ray or torch."""

from study.records.study_folder import Study, load

__all__ = ["Study", "load"]
