"""Agreement of clusters with labels: the measures, and their table."""

from collections.abc import Mapping, Sequence

import numpy as np

from machine.reading import Damaged, shown
from runs import Run

BASELINES_FILE = "baselines.json"
# What `agreement` measures, in the order in which tables show it, and the heads of their columns.
MEASURES = {"ami": "AMI", "nmi": "NMI", "ari": "ARI", "accuracy": "accuracy", "purity": "purity"}


def agreement(labels: Sequence[str], assignment: np.ndarray) -> dict[str, float]:
    """NMI, ARI, AMI, accuracy under the best one-to-one matching of clusters and labels, and purity; each at most 1.

    Images whose label is '' (unknown) do not count.
    """
    from scipy.optimize import linear_sum_assignment  # here: explain needs the rest of this file alone
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    known = [i for i, label in enumerate(labels) if label]
    labels, assignment = [labels[i] for i in known], assignment[known]
    table = contingency_matrix(labels, assignment)  # (labels, clusters)
    matched = table[linear_sum_assignment(-table)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(labels, assignment)),
        "ari": float(adjusted_rand_score(labels, assignment)),
        "ami": float(adjusted_mutual_info_score(labels, assignment)),
        "accuracy": float(matched / table.sum()),
        "purity": float(table.max(0).sum() / table.sum()),
    }


def read_baselines(run: Run) -> dict[str, dict[str, float]] | None:
    """baselines.json: baseline -> measure -> value; None where there is none.

    Raises:
        UserError: if it is damaged.
    """
    found: dict[str, dict[str, float]] | None = run.read_json(BASELINES_FILE, dict[str, dict[str, float]])
    for name, values in (found or {}).items():
        if not MEASURES.keys() <= values.keys():
            mend = "remove it and run the training again, which writes it"
            raise Damaged(run.path / BASELINES_FILE, f"{shown(name)} lacks a measure", mend)
    return found


def agreement_table(rows: Sequence[tuple[str, Mapping[str, float]]]) -> list[str]:
    """Lines for the console: a head, then what was clustered and its measures."""
    width = max(len(name) for name, _ in rows)
    lines = [f"{'agreement with the labels':<{width + 2}}" + "".join(f"{head:>10}" for head in MEASURES.values())]
    for name, values in rows:
        lines.append(f"  {name:<{width}}" + "".join(f"{float(values[measure]):>10.3f}" for measure in MEASURES))
    return lines
