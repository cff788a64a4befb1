"""A run opened again: its images, its network, what the network sees.

The functions are what `explain` asks this trainer for (explain.subject.Trainer); `TrainedRun` is for notebooks.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import runs
from console import UserError
from datasets import SOURCES, Dataset, check_drawn, look, open_dataset
from deepcluster import models
from deepcluster.by_heart import learn_by_heart, recipe
from deepcluster.config import Config, read_config
from deepcluster.descriptors import facts_of
from deepcluster.expert import given_names as given_names  # explain asks for it here
from deepcluster.models import ClusterNet, build, fuse_batch_norm
from deepcluster.train import reduce
from deepcluster.views import MEAN, STD, Frames, fixed_view, normalise
from runs import Run
from runs.directory import checkpoint_of, load_weights
from runs.received import choose_images, tell_changes

if TYPE_CHECKING:
    import pandas


def group(run: Run) -> str:
    """What one logit stands for, in a word."""
    return "cluster"


def class_names(run: Run) -> list[str] | None:
    """What logit j should say; None: clusters mean nothing by themselves, so no prediction is wrong."""
    return None


def open_images(run: Run, data: str | None, workers: int | None, mnist_dir: Path | None) -> Dataset:
    """The images of `data`, decoded for the run's view; None: the run's own, which must be the same ones.

    Raises:
        UserError: if the run's own images are others by now, or this program draws the view otherwise.
    """
    stored, seen = run.meta.dataset, run.meta.view
    check_drawn(seen.name, seen.drawn)
    limit = None if data or stored.excluded else stored.limit
    source = choose_images(run, data, SOURCES)
    dataset = open_dataset(source, seen.decoded_side, limit, workers, mnist_dir, seen.decode_at_most)
    if data is None and stored.excluded:  # images.csv knows which were left
        own = {*run.ids}
        dataset = dataset.take(np.array([i for i, name in enumerate(dataset.ids) if name in own], np.int64))
    dataset = look(dataset, seen.name, seen.size, workers)
    if data is None and dataset.ids != run.ids:
        raise UserError(
            f"{run.path}: the images in {stored.source} are not those of the run any more: put them back, or name them"
        )
    if data is None:
        tell_changes(run, dataset.ids, dataset.key)
    return dataset


def run_config(run: Run) -> Config:
    """The settings of a deepcluster run.

    Raises:
        UserError: if it is none, or of a version with other settings.
    """
    if run.meta.kind != "deepcluster":
        raise UserError(f"{run.path}: not a deepcluster run but {run.meta.kind}")
    return read_config(run.meta.config, run.path / "run.json")


def network(run: Run, epoch: int | None = None) -> ClusterNet:
    """The network of an epoch (default: the last kept), in eval mode on the CPU.

    Raises:
        UserError: if no weights were kept, or they do not fit.
    """
    saved = checkpoint_of(run, epoch)
    model = build(models.check_arguments(saved["model"], run.path))
    load_weights(run, model, saved["state"])
    return model.eval()


def untrained(run: Run, trained: ClusterNet, draw: int = 0) -> ClusterNet:
    """The network before its training, in eval mode on the CPU, with a head of as many logits as the trained one's.

    `draw`: from 1 on with other random weights.
    """
    model = models.untrained(run_config(run), draw)
    k = trained.arguments["k"]
    if model.arguments["k"] != k:
        model.fresh_head(k, torch.Generator().manual_seed(run.meta.seed + draw))
    return model.eval()


def for_inference(model: ClusterNet) -> ClusterNet:
    """The same function, faster, without gradients of its parameters."""
    return fuse_batch_norm(model)


def view(run: Run, frames: Frames, rows: np.ndarray) -> Tensor:
    """Images `rows` of the frames as the network sees them: (B, 3, height, width)."""
    seen = run.meta.view
    return fixed_view(frames, rows, seen.size, seen.center_crop, seen.name)


def photograph(images: Tensor) -> Tensor:
    """What `view` gave, as a picture: (B, 3, H, W) in 0..1."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return images * std + mean


def from_photograph(images: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 as the network sees them: the inverse of `photograph`."""
    return normalise(images * 255)


def clustered(run: Run, features: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Features (N, D) of the dataset's images as points of which near ones are alike, (N, d): what is clustered."""
    config = run_config(run)
    return reduce(torch.from_numpy(features), config, facts_of(dataset, config))


def taught(
    run: Run, frames: Frames, labels: np.ndarray, k: int, epochs: int, seed: int, kept: Path, stop_after: int | None
) -> tuple[ClusterNet, list[float]]:
    """A network of the run's kind that learnt the labels (N,) of N images: see `by_heart.learn_by_heart`."""
    config = recipe(run_config(run), len(labels), epochs, seed)
    return learn_by_heart(config, frames, labels, k, kept, stop_after)


class TrainedRun:
    """A run directory for a notebook: tables as pandas DataFrames, features as an array, the network.

    Args:
        path: the run directory.

    Raises:
        UserError: if it is no deepcluster run.
    """

    def __init__(self, path: str | Path):
        self.run = runs.open_run(Path(path))
        self.config = run_config(self.run)

    def __repr__(self) -> str:
        done = len(self.run.epochs())
        return f"TrainedRun({str(self.run.path)!r}: {len(self.run.ids)} images, {done} of {self.config.epochs} epochs)"

    def frame(self) -> "pandas.DataFrame":
        """clusters.csv (columns in runs.tables.CLUSTERS) with the labels, where there are any; a row for each image."""
        import pandas

        frame = pandas.DataFrame(self.run.table())
        return frame if self.run.labels is None else frame.assign(label=self.run.labels)

    def log(self) -> "pandas.DataFrame":
        """log.csv (columns in runs.tables.LOG); a row for each finished epoch."""
        import pandas

        return pandas.DataFrame(self.run.log()).apply(pandas.to_numeric)

    def network(self, epoch: int | None = None) -> ClusterNet:
        """The network of an epoch (default: the last kept), in eval mode on the CPU. Logit j is cluster j."""
        return network(self.run, epoch)

    def images(self, rows: "np.ndarray | list[int]", data: str | None = None) -> Tensor:
        """Images `rows` of the run as the network sees them: (B, 3, size, size) float32."""
        dataset = open_images(self.run, None if data is None else str(data), None, None)
        wanted = np.atleast_1d(np.asarray(rows))
        if wanted.dtype == bool and wanted.shape == (len(dataset),):
            wanted = np.flatnonzero(wanted)
        if not len(wanted) or wanted.dtype.kind not in "iu" or wanted.min() < 0 or wanted.max() >= len(dataset):
            raise UserError(f"images: rows are numbers from 0 to {len(dataset) - 1}, or a mask of {len(dataset)}")
        return view(self.run, Frames(dataset.pixels, torch.device("cpu")), wanted)

    def features(self, epoch: int | None = None, data: str | None = None, device: str = "auto") -> np.ndarray:
        """What is clustered next, by an epoch's weights (default: the last kept): the neck's (N, D) float32 output."""
        from deepcluster.features import embed
        from machine.device import use_device

        where = use_device(device, self.run.meta.stamp.threads)
        frames = Frames(open_images(self.run, None if data is None else str(data), None, None).pixels, where)
        found = embed(self.network(epoch).to(where), frames, self.config, "embedding")
        return found.features.cpu().numpy()
