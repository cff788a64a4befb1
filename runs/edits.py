"""The expert's edits of an epoch, saved by the gallery as edits.csv: read, checked and applied to a run's clusters."""

import re
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from console import UserError
from machine.files import harmless, refuse_links, spared, write_atomic
from machine.reading import open_regular, read_csv, shown, whole_number
from runs import Run

COLUMNS = ("epoch", "image", "cluster", "action", "value", "note")
ACTIONS = ("of", "new", "name", "merge", "move", "wrong", "note")  # of: the table that says what was edited
MOST_MADE = 1_000_000  # a larger number of a new cluster is damage
OUT = "clusters-edited.csv"  # in the run: what `explain apply` wrote last
DIGEST = re.compile("[0-9a-f]{16}")
TABLES = "assignments"  # ... a folder of the tables that galleries were made of, by their digests: edits name these


@dataclass(frozen=True)
class Start:
    """The clusters that were edited: the run's own, or those of a table, which may have been edited before."""

    assignment: np.ndarray  # (N,) cluster, -1: none
    logits: dict[int, tuple[int, ...]]  # cluster -> outputs of the network that stand for it
    names: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)  # image -> why
    wrong: frozenset[int] = frozenset()


@dataclass
class Edited:
    """The clusters of a run while edits are applied to them."""

    run: Run
    epoch: int
    before: np.ndarray  # (N,) the run's own cluster
    start: Start  # what was edited
    after: np.ndarray  # (N,) cluster, -1: none
    clusters: set[int]  # those with images before the edits
    outputs: int  # of the network: clusters from this number on were made by hand
    made: set[int] = field(default_factory=set)  # new clusters of the expert's own
    names: dict[int, str] = field(default_factory=dict)  # cluster -> given by the expert
    into: dict[int, int] = field(default_factory=dict)  # cluster -> what it is merged into
    notes: dict[int, str] = field(default_factory=dict)  # image -> why
    wrong: set[int] = field(default_factory=set)
    log: list[str] = field(default_factory=list)  # what was done, in words

    @property
    def root(self) -> dict[int, int]:
        """Of each cluster the one that its images are in once merged."""
        return {cluster: _end(cluster, self.into) for cluster in self.clusters | self.made}

    @property
    def final(self) -> np.ndarray:
        """(N,) cluster after moves and merges, -1: none."""
        root = self.root
        return np.array([root[int(cluster)] if cluster >= 0 else -1 for cluster in self.after], np.int64)

    @property
    def moved(self) -> np.ndarray:
        """(N,) which images the expert has moved, by these edits or by those before: not those of merged clusters."""
        earlier = [
            cluster >= self.outputs or own not in self.start.logits[cluster]
            for cluster, own in zip(self.start.assignment.tolist(), self.before.tolist(), strict=True)
            if cluster >= 0
        ]
        moved = (self.after >= 0) & (self.after != self.start.assignment)
        moved[self.start.assignment >= 0] |= earlier
        return moved & (self.after >= 0)

    def became(self, cluster: int) -> int | None:
        """The cluster that one of the run's own is now; None of one that has no images left."""
        kept = [number for number, logits in self.start.logits.items() if number < self.outputs and cluster in logits]
        return self.root.get(kept[0]) if kept else None

    def name_of(self, cluster: int) -> str:
        """What a cluster is called that others may have been merged into; '' if nothing."""
        parts = [cluster, *sorted(part for part, end in self.root.items() if end == cluster)]
        return next((self.names[part] for part in parts if self.names.get(part)), "")


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
    wrong coin that was not moved is in no cluster. A merged cluster bears the number it was merged into. `logits`
    says which of the network's outputs a cluster stands for: of a merged one those of its parts, of a new one those
    of the clusters that its images come from.
    """
    edited = edit_clusters(run, edits)
    rows = _tabulate(edited)
    return rows, edited.log


def edit_clusters(run: Run, edits: list[dict[str, str]]) -> Edited:
    """The run's clusters with the edits done.

    Raises:
        UserError: naming the edit that this run cannot have.
    """
    epoch = _number(edits[0]["epoch"], "an epoch", "--edits")
    before = run.clusters(epoch).assignment.astype(np.int64)
    digests = sorted({edit["value"] for edit in edits if edit["action"] == "of"})
    if len(digests) > 1:
        told = " and ".join(map(shown, digests[:2]))
        raise UserError(f"--edits: are of several tables of clusters (digests {told}): save each gallery's own")
    digest = digests[0] if digests else None
    outputs = outputs_of(run, epoch, before)
    if digest is None:
        start = Start(before, {number: (number,) for number in np.unique(before).tolist()})
    else:
        start = read_start(run, digest, outputs)
    clusters = {*start.assignment[start.assignment >= 0].tolist()}
    edited = Edited(run, epoch, before, start, start.assignment.copy(), clusters, outputs)
    edited.names |= start.names
    edited.notes |= start.notes
    edited.wrong |= start.wrong
    edited.log.append(f"edits of epoch {epoch} of {run.path}" + (f", as edited before ({digest})" if digest else ""))
    index: dict[str, list[int]] = {}
    for i, name in enumerate(run.ids):
        index.setdefault(_as_saved(name), []).append(i)
    lines = list(enumerate(edits, 2))
    for line, edit in lines:  # before the moves into them
        if edit["action"] == "new":
            _make_cluster(edited, edit, f"--edits, line {line}")
    for line, edit in lines:
        where = f"--edits, line {line}"
        if edit["action"] in ("name", "merge"):
            _edit_cluster(edited, edit, where)
        elif edit["action"] not in ("of", "new"):
            cluster = _cluster(edit["cluster"], edited.clusters, where)
            _edit_image(edited, edit, cluster, _image(edited, edit, cluster, index, where), where)
    while unused := edited.made - {*edited.after.tolist()} - {*edited.into.values()}:
        cluster = min(unused)
        edited.log.append(f"cluster {cluster} is left out: no image was moved into it")
        edited.made.discard(cluster)
        edited.into.pop(cluster, None)
    return edited


def keep_start(run: Run, path: Path) -> None:
    """Copy the table that a gallery is made of into the run, so that edits of that gallery find it.

    Raises:
        FileNotFoundError: if it is not there.
    """
    with open_regular(path) as file:
        content = file.read()
    kept = run.path / TABLES / f"{digest_of(content)}.csv"
    if not kept.exists():
        refuse_links(run.path)
        kept.parent.mkdir(exist_ok=True)
        write_atomic(kept, content)


def digest_of(table: bytes) -> str:
    """What a table of clusters is called in edits and in results.json."""
    return sha256(table).hexdigest()[:16]


def read_start(run: Run, digest: str, k: int) -> Start:
    """The clusters of the table with this digest, which `keep_start` copied or `explain apply` wrote.

    Raises:
        UserError: if the run has it no more, or it will not do.
    """
    for path in (run.path / TABLES / f"{digest}.csv", run.path / OUT):
        if DIGEST.fullmatch(digest) and path.is_file():
            with open_regular(path) as file:
                if digest_of(file.read()) == digest:
                    return read_clusters_table(path, run, k)
    raise UserError(
        f"--edits: are of clusters of a table (digest {shown(digest)}) that {run.path} does not have: explain it again "
        "with --assignments"
    )


def read_clusters_table(path: Path, run: Run, k: int, option: str = "") -> Start:
    """Clusters that came from a table.

    Args:
        path: with the columns image and cluster, and perhaps logits ("3+7"), name, wrong and note, as `explain apply`
            writes it. An empty cluster means none; images that it leaves out have none. A number that the network has
            no logit for is a cluster made by hand, which must name others' logits.
        run: whose images they are.
        k: logits of its network.
        option: that named the table, for what is refused.

    Raises:
        UserError: naming the line that will not do.
        FileNotFoundError: if it is not there.
    """
    rows = read_csv(path)
    table = f"{option} {path}".strip()
    if not rows or not {"image", "cluster"} <= rows[0].keys():
        raise UserError(f"{table}: needs the columns image and cluster")
    index = {name: i for i, name in enumerate(run.ids)}
    assignment = np.full(len(run.ids), -1, np.int64)
    logits: dict[int, tuple[int, ...]] = {}
    names, notes, wrong = {}, {}, set()
    for line, row in enumerate(rows, 2):
        where = f"{table}, line {line}"
        i = index.get(row["image"])
        if i is None:
            raise UserError(f"{where}: {row['image']!r} is not an image of {run.path}")
        if row.get("note"):
            notes[i] = spared(row["note"])
        if row.get("wrong"):
            wrong.add(i)
        if not row["cluster"].strip():
            continue
        told = row.get("logits") or row["cluster"]
        number = _below(row["cluster"], k if told == row["cluster"] else MOST_MADE, where)
        members = tuple(_below(part, k, where) for part in re.split(r"[+ ]+", told.strip()))
        assignment[i] = number
        if logits.setdefault(number, members) != members:
            raise UserError(f"{where}: cluster {number} has other logits than above")
        if row.get("name"):
            names[number] = spared(row["name"])
    if not logits:
        raise UserError(f"{table}: puts no image into a cluster")
    return Start(assignment, logits, names, notes, frozenset(wrong))


def _below(text: str, most: int, where: str) -> int:
    number = whole_number(text.strip())
    if number is None or number >= most:
        raise UserError(f"{where}: {shown(text)} is not a cluster of this epoch: 0 to {most - 1}")
    return number


def outputs_of(run: Run, epoch: int, assignment: np.ndarray) -> int:
    """How many outputs the network of an epoch has: the number from which new clusters are counted."""
    row = next((row for row in run.log() if row["epoch"] == str(epoch)), {})
    return max(whole_number(row.get("k") or "") or 0, int(assignment.max(initial=-1)) + 1)


def _make_cluster(edited: Edited, edit: dict[str, str], where: str) -> None:
    number = _number(edit["cluster"], "a cluster", where)
    if not edited.outputs <= number < MOST_MADE:
        raise UserError(f"{where}: new clusters have numbers from {edited.outputs} to {MOST_MADE - 1}, not {number}")
    if number in edited.made | edited.clusters:
        raise UserError(f"{where}: cluster {number} is made twice")
    edited.made.add(number)
    parents = f" of images of {' and '.join(edit['value'].split('+'))}" if edit["value"] else ""
    edited.log.append(f"cluster {number} is made{parents}")


def _edit_cluster(edited: Edited, edit: dict[str, str], where: str) -> None:
    cluster = _cluster(edit["cluster"], edited.clusters | edited.made, where)
    if edit["action"] == "name":
        edited.names[cluster] = edit["value"]
        edited.log.append(f"cluster {cluster} is called {edit['value']!r}")
        return
    other = _cluster(edit["value"], edited.clusters | edited.made, where)
    if edited.into.get(cluster, other) != other:
        told = f"{other}, not into {edited.into[cluster]} as a line above says"
        edited.log.append(f"cluster {cluster} is merged into {told}")
    edited.into[cluster] = other


def _as_saved(name: str) -> str:
    """A file's name as a browser saves it: each byte that is no UTF-8 has become U+FFFD."""
    return re.sub("[\udc80-\udcff]", "\ufffd", name)


def _image(edited: Edited, edit: dict[str, str], cluster: int, index: dict[str, list[int]], where: str) -> int:
    """The image that an edit speaks of, which is in the cluster that the edit says."""
    called = index.get(_as_saved(edit["image"]), [])
    if not called:
        raise UserError(f"{where}: {edit['image']!r} is not an image of {edited.run.path}")
    if len(called) > 1:
        raise UserError(f"{where}: {len(called)} images are called {edit['image']!r} in a browser: rename their files")
    i = called[0]
    there = int(edited.start.assignment[i])
    if there != cluster:
        place = f"cluster {there}" if there >= 0 else "no cluster"
        raise UserError(
            f"{where}: {edit['image']!r} is in {place} of epoch {edited.epoch}, not in {cluster}: these edits belong "
            "to another run, or to clusters that were edited otherwise"
        )
    return i


def _edit_image(edited: Edited, edit: dict[str, str], cluster: int, i: int, where: str) -> None:
    reason = f" ({edit['note']})" if edit["note"] else ""
    if edit["action"] == "move":
        earlier, edited.after[i] = edited.after[i], _cluster(edit["value"], edited.clusters | edited.made, where)
        done = f"moved from cluster {cluster} to {edited.after[i]}"
        if earlier not in (cluster, -1, edited.after[i]):
            done += f", not to {earlier} as a line above says"
    elif edit["action"] == "wrong":
        earlier, edited.after[i] = edited.after[i], -1
        edited.wrong.add(i)
        done = f"does not belong to cluster {cluster}"
        if earlier not in (cluster, -1):
            done += f", so it is not moved to {earlier} as a line above says"
    else:
        done = "noted"
    edited.log.append(f"{edit['image']}: {done}{reason}")
    if edit["note"]:
        edited.notes[i] = edit["note"]


def logits_of(edited: Edited, cluster: int) -> list[int]:
    """The network's outputs that stand for a cluster after the edits, ascending.

    Of one that the network knows they are its own and those of the clusters merged into it; of one made by hand those
    of all clusters that its images come from, which these have as well.
    """
    logits = edited.start.logits
    if cluster < edited.outputs:
        parts = {part for part, end in edited.root.items() if end == cluster and part < edited.outputs}
    else:
        parts = {*edited.start.assignment[(edited.final == cluster) & (edited.start.assignment >= 0)].tolist()}
    return sorted({output for part in parts for output in logits[part]})


def _tabulate(edited: Edited) -> list[dict[str, object]]:
    """A row for each image."""
    root, final = edited.root, edited.final
    for cluster, other in sorted(edited.into.items()):
        further = f", so into {root[cluster]}" if root[cluster] != other else ""
        edited.log.append(f"cluster {cluster} is merged into {other}{further}")
    parts = {end: logits_of(edited, end) for end in {*root.values()}}
    names = {cluster: harmless(edited.name_of(cluster)) for cluster in parts}
    rows: list[dict[str, object]] = [
        {
            "image": name,
            "cluster": int(final[i]) if final[i] >= 0 else "",
            "logits": "+".join(map(str, parts.get(int(final[i]), []))),
            "name": names.get(int(final[i]), ""),
            "before": int(edited.before[i]),
            "wrong": "yes" if i in edited.wrong else "",
            "note": harmless(edited.notes.get(i, "")),
        }
        for i, name in enumerate(edited.run.ids)
    ]
    sizes = Counter(final.tolist())
    count = len({*root.values()})
    edited.log.append(f"{len(edited.clusters)} clusters became {count}; {sizes[-1]} images are in none")
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
        raise UserError(f"{where}: {shown(text)} is not the number of {what}")
    return number


def _cluster(text: str, clusters: set[int], where: str) -> int:
    number = _number(text, "a cluster", where)
    if number not in clusters:
        raise UserError(f"{where}: there is no cluster {number} with images in this epoch")
    return number
