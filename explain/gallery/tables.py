"""explanations.csv and skipped.csv of an epoch."""

import numpy as np

from explain.doubt import doubts_of
from explain.own import PREFIX, to_cells
from explain.record import Explanation, number_column
from machine.files import write_csv


def write_tables(explanation: Explanation) -> None:
    """A row for each image with pictures; and the images that are not there any more."""
    subject, scores, record, paths = explanation.subject, explanation.scores, explanation.record, explanation.paths
    run, clusters = subject.run, subject.clusters
    methods = [asked.key for asked in record.drawn()]
    doubts = {flag: held for flag, held in doubts_of(explanation).items() if flag != "empty"}  # told of each method
    own = {PREFIX + name: to_cells(values) for name, values in explanation.own.items()}
    table = []
    for row in explanation.drawn_rows().tolist():
        line: dict[str, object] = {"image": run.ids[row], "cluster": int(clusters.assignment[row])}
        if run.labels is not None:
            line["label"] = run.labels[row]
        line |= {
            "score": _cell(scores.score[row]),
            "rival": int(scores.rival[row]) if scores.rival[row] >= 0 else "",
            "margin": _cell(scores.margin[row]),
            "probability": _cell(scores.probability[row]),
            "distance": _cell(clusters.distance[row]),
            "rank": int(scores.rank[row]),
            "target": explanation.choice.target,
        }
        line |= {key: paths.file(row, key) if record.done[key][row] else "" for key in methods}
        line |= {number_column(one.key, name): _cell(values[row]) for one, name, values in record.measured()}
        flags = [f"empty:{key}" for key in methods if record.empty[key][row]]
        flags += [flag for flag, held in doubts.items() if held[row]]
        line["flags"] = ";".join(flags)
        line |= {column: cells[row] for column, cells in own.items()}
        table.append(line)
    write_csv(explanation.folder / "explanations.csv", table, None if table else ["image", "cluster"])
    gone = np.flatnonzero(subject.pictures.position < 0)
    rows = [{"image": run.ids[i], "reason": "not there any more"} for i in gone]
    write_csv(explanation.folder / "skipped.csv", rows, ["image", "reason"])


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
