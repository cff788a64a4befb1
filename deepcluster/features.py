"""Images -> what is clustered: one pass of the network over all of them, then PCA with partial whitening."""

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
from machine.processes import gathered, share, world_size

EMBED_BATCH = 128


@dataclass(frozen=True)
class Embedding:
    """One pass over all N images with one network."""

    features: Tensor  # (N, D) float32, what is clustered
    logits: Tensor  # (N, k) float32, the head's

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
    """As `embed`, each process its share of the images; every process then has all of them."""
    total = len(frames.shape)
    if total < world_size():
        raise UserError(f"{world_size()} processes for {total} images: start fewer (torchrun --nproc-per-node)")
    own = embed(model, frames, config, what, share(total))
    return Embedding(gathered(own.features, total), gathered(own.logits, total))


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
    x = features.double()
    x = x - x.mean(0)
    n, d = x.shape
    keep = min(dimension, n - 1, d)
    gram = n < d
    matrix = x @ x.T if gram else x.T @ x
    values, vectors = _largest_eigenpairs(matrix / (n - 1), keep)
    if gram:
        vectors = torch.nn.functional.normalize(x.T @ vectors, dim=0)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    projected = x @ (vectors * torch.sign(largest)) * (values + 1e-12) ** power
    projected[:, values <= 1e-10 * values[0]] = 0  # a direction without variance holds rounding alone
    return torch.nn.functional.normalize(projected, dim=1).float().cpu().contiguous().numpy()


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
