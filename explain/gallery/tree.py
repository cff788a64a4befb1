"""The clusters as a tree (dendrogram), for a page: which of them lie near each other."""

from dataclasses import dataclass

import numpy as np

from explain.record import Explanation

MOST = 500  # clusters; a larger tree nobody reads
ROW, WIDTH = 44, 420  # pixels: a leaf's height, and the tree's width


@dataclass(frozen=True)
class Tree:
    """Leaves from above, and the tree's lines as an SVG path in pixels."""

    leaves: list[int]  # clusters
    path: str
    height: int
    width: int = WIDTH


def draw_tree(explanation: Explanation) -> Tree | None:
    """Average linkage of the clusters' centres by the cosine of their angle; None of fewer than 3 or very many."""
    from scipy.cluster.hierarchy import dendrogram, linkage

    clusters, centres = explanation.subject.clusters, explanation.scores.centres
    there = np.flatnonzero(np.isfinite(centres).all(1))
    if not 3 <= len(there) <= MOST:
        return None
    plot = dendrogram(linkage(centres[there], "average", "cosine"), no_plot=True)
    leaves = [clusters.numbers[there[leaf]] for leaf in plot["leaves"]]
    far = max(max(distances) for distances in plot["dcoord"]) or 1.0
    lines = []
    for at, distances in zip(plot["icoord"], plot["dcoord"], strict=True):  # a leaf's middle is at 5, 15, 25, ...
        points = [(WIDTH - 2 - (WIDTH - 4) * d / far, ROW * y / 10) for y, d in zip(at, distances, strict=True)]
        lines.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points))
    return Tree(leaves, "".join(lines), ROW * len(leaves))
