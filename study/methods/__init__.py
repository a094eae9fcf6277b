"""One folder a kind of study; folders `study/methods` elsewhere on Python's path count as well."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
