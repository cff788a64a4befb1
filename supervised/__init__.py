"""Labelled images -> a network that tells their classes, and a run directory whose images are the test set."""

import machine  # noqa: F401  before torch
