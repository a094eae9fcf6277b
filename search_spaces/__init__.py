"""What to try: one module a kind of study, or a variant of one, data only (`SPACE`, `OBJECTIVES`, `BASELINES`); folders
`search_spaces` elsewhere on Python's path count as well."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
