"""Pixel flips: which single pixel, inverted, changes the answer of a network; the study of all of them, by windows and exactly."""
