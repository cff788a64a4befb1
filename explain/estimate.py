"""What `explain --dry-run` says: which pictures would be drawn, how long that takes and how large they are."""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from console import duration, megabytes
from explain.choice import Choice, chosen_rows
from explain.drawing import draw_missing
from explain.record import PIECES, Explanation
from explain.scores import Scores, score_images
from explain.shards import Shard
from explain.subject import Subject
from machine.device import device_in_words

WARM, SAMPLE = 4, 32  # images that are drawn first, untimed, and then timed


def tell_plan(subject: Subject, choice: Choice, results: Path, shard: Shard | None) -> None:
    """Print what a draw of this epoch, or of a shard of it, into `results` would do.

    A few images are drawn to measure it, into a folder that goes again.
    """
    with TemporaryDirectory() as scratch:
        begun = time.perf_counter()
        scores = score_images(subject, Path(scratch), choice.map)
        looking = time.perf_counter() - begun
        rows = chosen_rows(subject, choice, scores.rank)
        rows = rows if shard is None else shard.of(rows)
        there = Explanation(subject, choice, results / str(subject.epoch), scores, rows)
        lacking = there.undrawn()
        todo = rows[np.any([lacking[key] for key in choice.keys], axis=0)]
        sample = np.random.default_rng(0).permutation(todo)[: WARM + SAMPLE]
        warm, timed = np.sort(sample[:WARM]), np.sort(sample[WARM:])
        drawing, size = 0.0, 0.0
        if len(todo):
            drawing, size = _draw(subject, choice, scores, Path(scratch) / "first", warm)
        if len(timed):
            drawing, size = _draw(subject, choice, scores, Path(scratch) / "then", timed)
    clusters = len(np.unique(subject.clusters.assignment[rows]))
    pictures = sum(int(lacking[key].sum()) for key in choice.keys)
    print(
        f"would explain epoch {subject.epoch} in {results}: {len(rows)} images in {clusters} clusters, "
        f"{', '.join(choice.keys)}: {pictures} pictures to draw, {len(rows) * len(choice.keys) - pictures} are there"
    )
    if not len(todo):
        print("nothing is left to draw; the tables and pages would be written anew")
        return
    home = next(path for path in (results, *results.absolute().parents) if path.exists())
    print(
        f"on {device_in_words(subject.device)}: about {duration(looking + drawing * len(todo))} "
        f"({len(timed) or len(warm)} images were drawn to measure it); {megabytes(size * len(todo))} of pictures, "
        f"{megabytes(shutil.disk_usage(home).free)} free"
    )


def _draw(subject: Subject, choice: Choice, scores: Scores, folder: Path, rows: np.ndarray) -> tuple[float, float]:
    """Draw some images into a folder of their own: seconds and bytes of one."""
    (folder / PIECES).mkdir(parents=True)
    begun = time.perf_counter()
    draw_missing(Explanation(subject, choice, folder, scores, rows), announce=False)
    seconds = time.perf_counter() - begun
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return seconds / len(rows), size / len(rows)
