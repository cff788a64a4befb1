"""The trained network of a supervised run, and what it sees."""

import numpy as np
import torch
from torch import Tensor

from console import UserError
from datasets import Pixels
from runs import Run
from supervised.models import DigitNet, build


def trained_model(run: Run, epoch: int) -> DigitNet:
    """The best network, which is kept under its epoch; in eval mode on the CPU."""
    saved = run.checkpoint(epoch)
    model = build(saved["model"]["name"])
    try:
        model.load_state_dict(saved["state"])
    except RuntimeError as error:
        raise UserError(f"{run.path}: a checkpoint does not fit its network ({str(error).splitlines()[0]})") from None
    return model.eval()


def view(pixels: Pixels, rows: np.ndarray, device: torch.device) -> Tensor:
    """Images `rows` as the network sees them: grey, (B, 1, 28, 28) float32 in 0..1."""
    stacked = np.stack([pixels[int(row)][..., 0] for row in rows])
    return torch.from_numpy(stacked).to(device)[:, None].float() / 255
