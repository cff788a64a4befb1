"""Images -> what is clustered: one pass of the network over all of them, then PCA with partial whitening.

Of many images and several processes no process holds all rows: each reduces its share, by sums over all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from console import UserError, progress
from deepcluster.config import Config
from deepcluster.models import ClusterNet, fuse_batch_norm
from deepcluster.views import Frames, fixed_view
from machine.device import full_precision
from machine.processes import gathered, share, summed, told, world_size

EMBED_BATCH = 128
LARGE = 2**28  # numbers, 47,000 unrolled spectra or 520,000 features of 512: of more, PCA never copies all rows
CHUNK = 4096  # rows at a time then


@dataclass(frozen=True)
class Embedding:
    """One pass over all N images with one network."""

    features: Tensor  # (N, D) float32, what is clustered; where they are spread, the rows of this process's share
    logits: Tensor  # (N, k) float32, the head's

    @property
    def spread(self) -> bool:
        """Whether each process holds the features of its share alone."""
        return len(self.features) < len(self.logits)

    @property
    def best_two(self) -> tuple[np.ndarray, np.ndarray]:
        """The head's first and second choice, (N, 2) each: softmax probability and cluster (the same one if k is 1)."""
        probability, cluster = self.logits.softmax(1).topk(min(2, self.logits.shape[1]), dim=1)
        pick = [0, -1]
        return probability[:, pick].cpu().numpy(), cluster[:, pick].cpu().numpy()


def embed(model: ClusterNet, frames: Frames, config: Config, what: str, rows: slice = slice(None)) -> Embedding:
    """Features and predictions of every image (or of `rows`), in eval mode, batch norms fused; float32 on every device.

    Whitening divides by small variances: in bfloat16 the geometry of the features would be rounding noise.
    """
    first, last, _ = rows.indices(len(frames.shape))
    net = fuse_batch_norm(model)
    features, logits = [], []
    starts = range(first, last, EMBED_BATCH)
    with torch.inference_mode(), full_precision():
        for begin in progress(starts, what, unit="batches"):
            indices = np.arange(begin, min(begin + EMBED_BATCH, last))
            feature = net.embed(fixed_view(frames, indices, config.size, config.center_crop, config.view))
            features.append(feature)
            logits.append(net.classify(feature))
    found = torch.cat(features)
    if not bool(torch.isfinite(found).all()):
        raise UserError("the network's features are not finite any more: train into another --exp with a smaller --lr")
    return Embedding(found, torch.cat(logits))


def embed_together(model: ClusterNet, frames: Frames, config: Config, what: str) -> Embedding:
    """As `embed`, each process its share of the images.

    Every process then has all logits, and all features too, unless they are many.
    """
    total = len(frames.shape)
    if total < world_size():
        raise UserError(f"{world_size()} processes for {total} images: start fewer (torchrun --nproc-per-node)")
    own = embed(model, frames, config, what, share(total))
    many = is_many(total, own.features.shape[1])
    return Embedding(own.features if many else gathered(own.features, total), gathered(own.logits, total))


def is_many(total: int, columns: int) -> bool:
    """Whether so many rows stay spread over the processes."""
    return world_size() > 1 and total * columns > LARGE


def pca_whiten(features: Tensor, dimension: int, power: float) -> np.ndarray:
    """Project on the principal components, scale each by (its variance + 1e-12) ** power, and normalise to length 1.

    power -1/2 whitens (the paper), -1/4 whitens by half, 0 is plain PCA. Eigenvectors of the covariance in float64
    (of the Gram matrix when there are fewer images than features); each has its largest entry positive.

    Args:
        features: (N, D).
        dimension: components wanted; min(dimension, N - 1, D) are kept.
        power: of the variance.

    Returns:
        (N, d) float32, C-contiguous, rows of length 1 (a row of zeros stays).
    """
    if features.numel() > LARGE:
        return _whiten_by_sums(features, dimension, power, lambda sums: sums)
    x = features.to(torch.float64, copy=True)
    x -= x.mean(0)
    n, d = x.shape
    keep = min(dimension, n - 1, d)
    gram = n < d
    matrix = x @ x.T if gram else x.T @ x
    values, vectors = _largest_eigenpairs(matrix / (n - 1), keep)
    if gram:
        vectors = torch.nn.functional.normalize(x.T @ vectors, dim=0)
    return _project(x, values, vectors, power).numpy()


def pca_whiten_together(own: Tensor, dimension: int, power: float) -> np.ndarray:
    """As `pca_whiten`, of rows (n, D) that are this process's share: a mean and a covariance are what is sent.

    Returns:
        (n, d) float32: this process's rows of what one process would find, but for rounding.
    """
    return _whiten_by_sums(own, dimension, power, summed)


def _whiten_by_sums(own: Tensor, dimension: int, power: float, add: Callable[[Tensor], Tensor]) -> np.ndarray:
    """PCA of which no more than CHUNK rows are in float64 at a time; `add` adds up over all who hold rows."""
    chunks = own.split(CHUNK)
    sums = torch.zeros(own.shape[1] + 1, dtype=torch.float64, device=own.device)
    for chunk in chunks:
        sums[:-1] += chunk.double().sum(0)
    sums[-1] = len(own)
    sums = add(sums)
    n, mean = int(sums[-1]), sums[:-1] / sums[-1]
    matrix = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=own.device)
    for chunk in chunks:
        x = chunk.double() - mean
        matrix.addmm_(x.T, x)
    keep = min(dimension, n - 1, len(mean))
    values, vectors = _largest_eigenpairs(add(matrix) / (n - 1), keep)
    if add is summed:  # the same directions everywhere, where variances are equal
        values, vectors = told(values.contiguous()), told(vectors.contiguous())
    return torch.cat([_project(chunk.double() - mean, values, vectors, power) for chunk in chunks]).numpy()


def _project(x: Tensor, values: Tensor, vectors: Tensor, power: float) -> Tensor:
    """Centred rows (n, D) float64 -> (n, d) float32 of length 1, on the CPU."""
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    projected = x @ (vectors * torch.sign(largest)) * (values + 1e-12) ** power
    projected[:, values <= 1e-10 * values[0]] = 0  # a direction without variance holds rounding alone
    return torch.nn.functional.normalize(projected, dim=1).float().cpu().contiguous()


def _largest_eigenpairs(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest eigenvalues, descending, and their eigenvectors as columns."""
    side = len(matrix)
    if matrix.is_cuda:
        values, vectors = torch.linalg.eigh(matrix)
        values, vectors = values[-count:], vectors[:, -count:]
    else:  # LAPACK can leave the others out: of 4,096 the paper wants 256
        found = scipy.linalg.eigh(matrix.numpy(), subset_by_index=(side - count, side - 1))
        values, vectors = (torch.from_numpy(np.ascontiguousarray(part)) for part in found)
    return values.flip(0).clamp_min(0), vectors.flip(1)
