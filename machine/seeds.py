"""Chance that comes from the seed alone."""

import numpy as np


def derive_seed(seed: int, epoch: int, purpose: str) -> int:
    """The seed of one use of chance in one epoch, in 0 .. 2**31 - 1.

    Every random number derives from (seed, epoch, purpose), so there is no generator state to save or to forget.
    """
    words = [seed, epoch, *purpose.encode()]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0] >> 1)
