"""The expert's edits, saved by the gallery as edits.csv -> clusters-edited.csv in the run directory."""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import runs
from console import UserError, plain
from machine.files import harmless, write_atomic, write_csv
from machine.reading import read_csv, shown, whole_number
from runs import Run

COLUMNS = ("epoch", "image", "cluster", "action", "value", "note")
ACTIONS = ("name", "merge", "move", "wrong", "note")
OUT, LOG = "clusters-edited.csv", "clusters-edited.log"


@dataclass
class Edited:
    """The clusters of a run while edits are applied to them."""

    run: Run
    epoch: int
    before: np.ndarray  # (N,) cluster
    after: np.ndarray  # (N,) cluster, -1: none
    clusters: set[int]  # those with images before the edits
    names: dict[int, str] = field(default_factory=dict)  # cluster -> given by the expert
    into: dict[int, int] = field(default_factory=dict)  # cluster -> what it is merged into
    notes: dict[int, str] = field(default_factory=dict)  # image -> why
    wrong: set[int] = field(default_factory=set)
    log: list[str] = field(default_factory=list)  # what was done, in words


def apply_command(options: argparse.Namespace) -> None:
    """`python -m explain apply`."""
    run = runs.open_run(options.run)
    rows, log = apply_edits(run, read_edits(options.edits))
    write_csv(run.path / OUT, rows)
    write_atomic(run.path / LOG, "".join(f"{plain(line)}\n" for line in log).encode())
    print(f"{run.path / OUT}: {len(rows)} images; what was done is in {run.path / LOG}")
    if sys.stdout.isatty():
        print("\n".join(log))


def read_edits(path: Path) -> list[dict[str, str]]:
    """The rows of edits.csv, all of one epoch.

    Raises:
        UserError: naming the line that will not do.
    """
    if not path.is_file():
        raise UserError(f"--edits {path}: no such file: save edits.csv in the gallery")
    rows = read_csv(path)
    if not rows or set(COLUMNS) - rows[0].keys():
        raise UserError(f"--edits {path}: has no edits in it, or not the columns {', '.join(COLUMNS)}")
    for line, row in enumerate(rows, 2):
        where = f"--edits {path}, line {line}"
        if row["action"] not in ACTIONS:
            raise UserError(f"{where}: unknown action {shown(row['action'])}: {', '.join(ACTIONS)}")
        if row["epoch"] != rows[0]["epoch"]:
            raise UserError(f"{where}: edits of epochs {rows[0]['epoch']} and {row['epoch']}: save each epoch's own")
    return rows


def apply_edits(run: Run, edits: list[dict[str, str]]) -> tuple[list[dict[str, object]], list[str]]:
    """The run's clusters after the edits: a row for each image, and what was done in words.

    Coins are moved first, then clusters merged, so a coin that was moved into a cluster goes where that one goes. A
    wrong coin that was not moved is in no cluster. A merged cluster bears the number it was merged into, and `logits`
    says which of the network's outputs it stands for.
    """
    epoch = _number(edits[0]["epoch"], "epoch", "--edits")
    before = run.clusters(epoch).assignment.astype(np.int64)
    edited = Edited(run, epoch, before, before.copy(), set(before.tolist()))
    edited.log.append(f"edits of epoch {epoch} of {run.path}")
    index = {name: i for i, name in enumerate(run.ids)}
    for line, edit in enumerate(edits, 2):
        where = f"--edits, line {line}"
        cluster = _cluster(edit["cluster"], edited.clusters, where)
        if edit["action"] in ("name", "merge"):
            _edit_cluster(edited, edit, cluster, where)
        else:
            _edit_image(edited, edit, cluster, _image(edited, edit, cluster, index, where), where)
    return _tabulate(edited), edited.log


def _edit_cluster(edited: Edited, edit: dict[str, str], cluster: int, where: str) -> None:
    if edit["action"] == "name":
        edited.names[cluster] = edit["value"]
        edited.log.append(f"cluster {cluster} is called {edit['value']!r}")
    else:
        edited.into[cluster] = _cluster(edit["value"], edited.clusters, where)


def _image(edited: Edited, edit: dict[str, str], cluster: int, index: dict[str, int], where: str) -> int:
    """The image that an edit speaks of, which is in the cluster that the edit says."""
    if edit["image"] not in index:
        raise UserError(f"{where}: {edit['image']!r} is not an image of {edited.run.path}")
    i = index[edit["image"]]
    if edited.before[i] != cluster:
        raise UserError(
            f"{where}: {edit['image']!r} is in cluster {edited.before[i]} of epoch {edited.epoch}, not in {cluster}: "
            "these edits belong to another run"
        )
    return i


def _edit_image(edited: Edited, edit: dict[str, str], cluster: int, i: int, where: str) -> None:
    reason = f" ({edit['note']})" if edit["note"] else ""
    if edit["action"] == "move":
        edited.after[i] = _cluster(edit["value"], edited.clusters, where)
        done = f"moved from cluster {cluster} to {edited.after[i]}"
    elif edit["action"] == "wrong":
        edited.after[i] = -1
        edited.wrong.add(i)
        done = f"does not belong to cluster {cluster}"
    else:
        done = "noted"
    edited.log.append(f"{edit['image']}: {done}{reason}")
    if edit["note"]:
        edited.notes[i] = edit["note"]


def _tabulate(edited: Edited) -> list[dict[str, object]]:
    """Merge, and write a row for each image."""
    root = {cluster: _end(cluster, edited.into) for cluster in edited.clusters}
    for cluster, other in sorted(edited.into.items()):
        further = f", so into {root[cluster]}" if root[cluster] != other else ""
        edited.log.append(f"cluster {cluster} is merged into {other}{further}")
    members: dict[int, list[int]] = {}
    for cluster in sorted(edited.clusters):
        members.setdefault(root[cluster], []).append(cluster)
    sizes: Counter[int] = Counter()
    rows: list[dict[str, object]] = []
    for i, name in enumerate(edited.run.ids):
        cluster = root[int(edited.after[i])] if edited.after[i] >= 0 else -1
        sizes[cluster] += 1
        parts = members.get(cluster, [])
        called = edited.names.get(cluster) or next((edited.names[m] for m in parts if m in edited.names), "")
        rows.append(
            {
                "image": name,
                "cluster": cluster if cluster >= 0 else "",
                "logits": "+".join(map(str, parts)),
                "name": harmless(called),
                "before": int(edited.before[i]),
                "wrong": "yes" if i in edited.wrong else "",
                "note": harmless(edited.notes.get(i, "")),
            }
        )
    edited.log.append(f"{len(edited.clusters)} clusters became {len({*root.values()})}; {sizes[-1]} images are in none")
    return rows


def _end(cluster: int, into: dict[int, int]) -> int:
    """Where a chain of merges ends; two clusters merged into each other end in the smaller number."""
    seen = [cluster]
    while seen[-1] in into:
        following = into[seen[-1]]
        if following in seen:
            return min(seen[seen.index(following) :])
        seen.append(following)
    return seen[-1]


def _number(text: str, what: str, where: str) -> int:
    number = whole_number(text)
    if number is None:
        raise UserError(f"{where}: {shown(text)} is not the number of a {what}")
    return number


def _cluster(text: str, clusters: set[int], where: str) -> int:
    number = _number(text, "cluster", where)
    if number not in clusters:
        raise UserError(f"{where}: there is no cluster {number} with images in this epoch")
    return number
