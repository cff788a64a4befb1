"""Pixel flips: which single pixel, inverted, changes the answer of a network; all of them, exactly."""
