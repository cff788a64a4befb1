"""Find the coins of a photograph: place, outline, confidence, and where the centre of the design lies.

Circles are voted for by the directions of edges, whatever their polarity (`circles`). About each, the picture is
unrolled and the outline is the closed path of least cost through two kinds of evidence (`outlines`): a sharp edge, and
colours that tell the coin inside from the ground outside (`colours`), of which darkened copies count as ground too,
since coins throw shadows. The path is found exactly (Viterbi's algorithm), small for every circle, then larger for the
coins among them, each about its own centre with what it encloses as the colours (`find`).
"""

from datasets.coin.design import design_center
from datasets.coin.find import CONFIDENT, WITHIN, Coin, find_coins

__all__ = ["CONFIDENT", "WITHIN", "Coin", "design_center", "find_coins"]
