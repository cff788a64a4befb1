"""The cluster log of the original DeepCluster program: which image was in which cluster at each epoch.

The log has an entry for each epoch that came to its end, and a resumed training begins a new log.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import ImageFolder

from console import UserError
from datasets import Dataset
from deepcluster.original_pickle import Damaged, Refused, unpickle

# More than any training of the original had; beyond, a file is damaged or hostile.
MOST_EPOCHS, MOST_CLUSTERS, MOST_IMAGES = 1_000_000, 100_000, 100_000_000


@dataclass(frozen=True)
class ClusterLog:
    """One epoch's clusters: by index into ImageFolder's order, or by path."""

    clusters: int  # empty ones included
    by_index: dict[int, int] | None
    by_path: dict[str, int] | None
    rows: dict[int, int] | None = None  # cluster -> row of the head, where the log says it

    @property
    def occupied(self) -> list[int]:
        return sorted(set((self.by_path or self.by_index or {}).values()))

    @property
    def order(self) -> list[int]:
        """The cluster of the head's row 0, 1, ..., as the log says it, else as the original numbers them.

        The original makes a list of the images' clusters, cluster by cluster, and numbers the clusters as iterating
        a `set` of that list yields them. That is ascending only while the largest is below the size of the set's
        table: of 50 clusters with 4, 11, 19, 30, 41 and 49 occupied it yields 4, 41, 11, 49, 19, 30. A small number
        is its own hash and the table has grown by the same rule from CPython 3.7 to 3.13 at least, so a set made here
        the same way yields the same. Python 2 and 3.6 grow it by another rule: what they made may be numbered
        otherwise, which `doubt_about_rows` notices.
        """
        if self.rows is not None:
            return sorted(self.rows, key=self.rows.__getitem__)
        return list(set(self.occupied))  # of a list, so that the table grows as the original's did


def read_clusters(path: Path, epoch: int, newest: int | None) -> ClusterLog:
    """Read the clusters that belong to a checkpoint.

    Args:
        path: the log.
        epoch: the checkpoint's.
        newest: the epoch that the whole training had reached, None if unknown.

    Raises:
        UserError: if the pickle is hostile, damaged or of an unknown shape, or does not hold that epoch.
    """
    try:
        entries = entries_of(unpickle(path.read_bytes()))
        epochs = epochs_of(entries, newest)
        if epoch in epochs:
            log = parse_entry(entries[max(i for i, one in enumerate(epochs) if one == epoch)])
    except Refused as refused:
        raise UserError(f"{path}: refused: {refused}: import only what the original program itself wrote") from None
    except Damaged as damaged:
        raise UserError(f"{path}: damaged or not a pickled cluster log ({damaged}): restore a copy") from None
    except (TypeError, ValueError, IndexError, OverflowError):
        raise UserError(
            f"{path}: none of the known shapes of a cluster log (lists of index lists, or (path, cluster) pairs)"
        ) from None
    held = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
    if epoch not in epochs:
        unknown = "" if newest is not None else " (or put the training's last checkpoint.pth.tar beside it)"
        raise UserError(
            f"{path}: holds the clusters of {held}, but the checkpoint is of epoch {epoch}: import a checkpoint of "
            f"an epoch that it holds{unknown}"
        )
    if len(epochs) > 1 and list(epochs) != list(range(1, epoch + 1)):
        print(f"{path}: its {len(epochs)} entries are taken for {held}; epoch {epoch} is imported")
    return log


def entries_of(content: Any) -> list[Any]:
    """The log's entries, one an epoch, of which the last may be all there is.

    Raises:
        ValueError: for any other shape.
    """
    if _is_triple(content):
        lists, *rest = content
        return [*lists[:-1], (lists[-1], *rest)] if _is_of_epochs(lists) else [content]
    if _is_pairs(content):
        return [content]
    if not isinstance(content, list) or not content:
        raise ValueError("not a list")
    return content


def epochs_of(entries: list[Any], newest: int | None) -> Sequence[int]:
    """The epoch of each entry, counted from 1.

    A triple says it, as a rule counted from 0. Otherwise the last entry is of the newest epoch: a log shorter than
    that is a resumed training's, whose first epochs were in the log before, and one that is longer was copied later
    than the checkpoint. Without `newest` the training is taken for one that was never resumed.
    """
    numbers = [_number_of(entry) for entry in entries]
    shift = 0 if numbers[-1] is not None and numbers[-1] == newest else 1
    stated = [number + shift for number in numbers if number is not None]
    if len(stated) == len(entries):
        return stated
    last = stated[-1] if numbers[-1] is not None else max(newest or 0, len(entries))
    return range(last - len(entries) + 1, last + 1)


def _number_of(entry: Any) -> int | None:
    number = entry[2] if _is_triple(entry) else None
    return number if type(number) is int and 0 <= number <= MOST_EPOCHS else None


def parse_entry(entry: Any) -> ClusterLog:
    """One epoch's clusters in any known shape, containers already plain lists and tuples.

    Raises:
        ValueError: for any other shape.
    """
    if _is_triple(entry):
        return _from_triple(entry)
    if _is_pairs(entry):  # the published list of (path, cluster)
        by_path = {str(name): _cluster(cluster) for name, cluster in entry}
        return ClusterLog(max(by_path.values()) + 1, None, by_path)
    return _from_lists(entry)


def _is_pairs(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value)
    )


def _is_triple(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], list) and _is_pairs(value[1])


def _is_of_epochs(lists: list[Any]) -> bool:
    """Whether there is one more level: a list with an entry per epoch."""
    return bool(lists and isinstance(lists[-1], list) and lists[-1] and isinstance(lists[-1][0], list))


def _from_triple(value: tuple) -> ClusterLog:
    """(index lists, [(path, row of the head)] in the order of the concatenated lists, the epoch's number)."""
    lists, pairs, _ = value
    if _is_of_epochs(lists):
        lists = lists[-1]
    log = _from_lists(lists)
    clusters = [cluster for cluster, members in enumerate(lists) for _ in members]
    by_path = {str(path): cluster for (path, _), cluster in zip(pairs, clusters, strict=True)}
    stated = sorted({(cluster, _cluster(row)) for (_, row), cluster in zip(pairs, clusters, strict=True)})
    if sorted(row for _, row in stated) == list(range(len(log.occupied))):  # one row for each, and each its own
        return replace(log, by_path=by_path, rows=dict(stated))
    if any(cluster != number for cluster, number in stated):
        raise ValueError("the pairs contradict the lists")
    return replace(log, by_path=by_path)  # the clusters' own numbers, which say nothing about the head


def _from_lists(lists: Any) -> ClusterLog:
    if not isinstance(lists, list) or not all(isinstance(members, list) for members in lists):
        raise ValueError("not lists of indices")
    if len(lists) > MOST_CLUSTERS:
        raise Refused(f"it counts more than {MOST_CLUSTERS} clusters")
    by_index = {_bounded(i, MOST_IMAGES, "images"): cluster for cluster, members in enumerate(lists) for i in members}
    if not by_index:
        raise ValueError("no image in it")
    return ClusterLog(len(lists), by_index, None)


def _cluster(number: Any) -> int:
    return _bounded(number, MOST_CLUSTERS, "clusters")


def _bounded(number: Any, most: int, what: str) -> int:
    number = int(number)
    if number < 0:
        raise Refused(f"it counts {what} below 0")
    if number >= most:
        raise Refused(f"it counts more than {most} {what}")
    return number


def match_images(log: ClusterLog, dataset: Dataset, root: Path) -> tuple[np.ndarray, int]:
    """Find the log's images among those of `dataset`.

    Paths are matched from their end, as many parts as make them unique; indices count torchvision's ImageFolder
    order, files that cannot be decoded included.

    Returns:
        The cluster of each image, (N,), -1 where the log has none, and the number of images in the log.

    Raises:
        UserError: if `root` is not the folder that the log tells of.
    """
    position = {name: i for i, name in enumerate(dataset.ids)}
    assignment = np.full(len(dataset), -1, np.int64)
    if log.by_path is not None:
        for name, cluster in log.by_path.items():
            parts = name.replace("\\", "/").split("/")
            for start in range(len(parts)):  # the longest ending that names an image
                found = position.get("/".join(parts[start:]))
                if found is not None:
                    assignment[found] = cluster
                    break
        count = len(log.by_path)
    else:
        assert log.by_index is not None
        try:
            samples = ImageFolder(str(root), allow_empty=True).samples
        except FileNotFoundError:
            raise UserError(
                f"{root}: has no class folders, but the cluster log counts images as ImageFolder does"
            ) from None
        for index, cluster in log.by_index.items():
            if not 0 <= index < len(samples):
                raise UserError(
                    f"{root}: has {len(samples)} images in ImageFolder's order, but the log names number {index}: "
                    "name the folder it was trained on"
                )
            found = position.get(Path(samples[index][0]).relative_to(root).as_posix())
            if found is not None:
                assignment[found] = cluster
        count = len(log.by_index)
    if (assignment < 0).all():
        raise UserError(f"{root}: none of the log's images is there: name the folder that the original was trained on")
    return assignment, count
