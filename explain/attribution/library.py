"""Methods of pytorch-grad-cam."""

import io
from contextlib import redirect_stderr
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from explain.attribution.targets import Layer, as_weights, find_layer, frozen, only_map, upsample


def library_cam(name: str, model: nn.Module, images: Tensor, targets: Tensor, layer: Layer = None) -> Tensor:
    """A method by its class's name: ReLU of its raw map, upsampled to (B, 1, H, W)."""
    import pytorch_grad_cam

    def score(output: Tensor, target: Tensor) -> Tensor:  # of one image: its logits (K,)
        return output[target] if target.dim() == 0 else (output * target.to(output)).sum()

    module = find_layer(model, layer)
    with frozen(model), getattr(pytorch_grad_cam, name)(model, [module]) as method:
        inputs = images.detach().clone().requires_grad_()
        logits = method.activations_and_grads(inputs)
        weighted = (logits * as_weights(targets, logits)).sum()  # refuses targets that do not fit, for each method
        if method.uses_gradients:
            weighted.backward(inputs=[inputs])
        store = method.activations_and_grads
        only_map(list(store.activations))
        activation, *gradient = (values[0].numpy() for values in (store.activations, store.gradients) if values)
        scores = [partial(score, target=target) for target in targets]
        with redirect_stderr(io.StringIO()):  # a progress bar for each image
            raw = method.get_cam_image(
                inputs.detach(), module, scores, activation, gradient[0] if gradient else None, eigen_smooth=False
            )
    maps = torch.as_tensor(np.asarray(raw), device=images.device, dtype=images.dtype)
    return upsample(maps[:, None].relu(), images, model)
