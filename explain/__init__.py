"""A run directory -> results/: which pixels speak for a cluster, as pictures and a gallery."""

from explain.attribution import METHODS

__all__ = ["METHODS"]
