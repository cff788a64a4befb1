"""MNIST with its labels: the CNN of the course and its baselines, for which the truth is known."""
