"""What to try: one module a kind of study, or a variant of one, data only. Folders `search_spaces` elsewhere on
Python's path count as well.

`SPACE` has the domain of each hyperparameter, and `OBJECTIVES` the direction of each metric. `BASELINES` has
configurations that are tried in addition, by name; it may be empty. `CONDITIONS` may be left out: it says of a
hyperparameter with which values of another one it is searched, as in `.github/CONTRIBUTING.md`.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
