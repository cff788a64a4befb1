"""Measurements of this project, each a ratio to a named reference in one run.

Absolute times depend on the machine and the hour; the ratio is the result.
"""

import machine  # noqa: F401  before torch
