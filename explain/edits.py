"""The expert's edits, saved by the gallery as edits.csv -> clusters-edited.csv in the run directory."""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import runs
from console import UserError
from runs import Run
from runs.directory import atomic

COLUMNS = ("epoch", "image", "cluster", "action", "value", "note")
ACTIONS = ("name", "merge", "move", "wrong", "note")
OUT, LOG = "clusters-edited.csv", "clusters-edited.log"


def apply_command(options: argparse.Namespace) -> None:
    """`python -m explain apply`."""
    run = runs.open_run(options.run)
    rows, log = edited(run, read_edits(options.edits))
    runs.write_csv(run.path / OUT, rows)
    atomic(run.path / LOG, lambda file: file.write(("\n".join(log) + "\n").encode("utf-8", "surrogateescape")))
    print(f"{run.path / OUT}: {len(rows)} images; what was done is in {run.path / LOG}")
    print(f"Explain it: python -m explain --run {run.path} --assignments {run.path / OUT} --results results-edited")
    if sys.stdout.isatty():
        print("\n".join(log))


def read_edits(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UserError(f"--edits {path}: no such file: save edits.csv in the gallery")
    rows = runs.read_csv(path)
    if not rows or set(COLUMNS) - rows[0].keys():
        raise UserError(f"--edits {path}: has no edits in it, or not the columns {', '.join(COLUMNS)}")
    for line, row in enumerate(rows, 2):
        if row["action"] not in ACTIONS:
            raise UserError(f"--edits {path}, line {line}: unknown action {row['action']!r}: {', '.join(ACTIONS)}")
        if row["epoch"] != rows[0]["epoch"]:
            raise UserError(f"--edits {path}, line {line}: edits of epochs {rows[0]['epoch']} and {row['epoch']}: save each epoch's own")  # fmt: skip
    return rows


def edited(run: Run, edits: list[dict[str, str]]) -> tuple[list[dict[str, object]], list[str]]:
    """The run's clusters after the edits: a row for each image, and what was done in words.

    Coins are moved first, then clusters merged, so a coin that was moved into a cluster goes where that one goes. A
    wrong coin that was not moved is in no cluster. A merged cluster bears the number it was merged into, and `logits` says
    which of the network's outputs it stands for.
    """
    epoch = _number(edits[0]["epoch"], "epoch", "--edits")
    before = run.clusters(epoch).assignment
    clusters = set(before.tolist())
    index = {name: i for i, name in enumerate(run.ids)}
    after = before.astype(np.int64)
    notes: dict[int, str] = {}
    wrong: set[int] = set()
    names: dict[int, str] = {}
    into: dict[int, int] = {}
    log = [f"edits of epoch {epoch} of {run.path}"]

    for line, edit in enumerate(edits, 2):
        where = f"--edits, line {line}"
        cluster = _cluster(edit["cluster"], clusters, where)
        if edit["action"] == "name":
            names[cluster] = edit["value"]
            log.append(f"cluster {cluster} is called {edit['value']!r}")
        elif edit["action"] == "merge":
            into[cluster] = _cluster(edit["value"], clusters, where)
        else:
            if edit["image"] not in index:
                raise UserError(f"{where}: {edit['image']!r} is not an image of {run.path}")
            i = index[edit["image"]]
            if before[i] != cluster:
                raise UserError(f"{where}: {edit['image']!r} is in cluster {before[i]} of epoch {epoch}, not in {cluster}: these edits belong to another run")  # fmt: skip
            reason = f" ({edit['note']})" if edit["note"] else ""
            if edit["action"] == "move":
                after[i] = _cluster(edit["value"], clusters, where)
                log.append(f"{edit['image']}: moved from cluster {cluster} to {after[i]}{reason}")
            elif edit["action"] == "wrong":
                after[i] = -1
                wrong.add(i)
                log.append(f"{edit['image']}: does not belong to cluster {cluster}{reason}")
            else:
                log.append(f"{edit['image']}: noted{reason}")
            if edit["note"]:
                notes[i] = edit["note"]

    root = {cluster: _end(cluster, into) for cluster in clusters}
    for cluster, other in sorted(into.items()):
        log.append(f"cluster {cluster} is merged into {other}" + (f", so into {root[cluster]}" if root[cluster] != other else ""))  # fmt: skip
    members: dict[int, list[int]] = {}
    for cluster in sorted(clusters):
        members.setdefault(root[cluster], []).append(cluster)
    sizes: Counter[int] = Counter()
    rows: list[dict[str, object]] = []
    for i, name in enumerate(run.ids):
        cluster = root[int(after[i])] if after[i] >= 0 else -1
        sizes[cluster] += 1
        called = names.get(cluster) or next((names[m] for m in members.get(cluster, []) if m in names), "")
        rows.append(
            {
                "image": name,
                "cluster": cluster if cluster >= 0 else "",
                "logits": "+".join(map(str, members[cluster])) if cluster >= 0 else "",
                "name": called,
                "before": int(before[i]),
                "wrong": "yes" if i in wrong else "",
                "note": notes.get(i, ""),
            }
        )
    log.append(f"{len(clusters)} clusters became {len({*root.values()})}; {sizes[-1]} images are in none")
    return rows, log


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
    if not text.isdigit():
        raise UserError(f"{where}: {text!r} is not the number of a {what}")
    return int(text)


def _cluster(text: str, clusters: set[int], where: str) -> int:
    number = _number(text, "cluster", where)
    if number not in clusters:
        raise UserError(f"{where}: there is no cluster {number} with images in this epoch")
    return number
