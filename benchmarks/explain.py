"""Images a second for Grad-CAM, Guided Backprop and Guided Grad-CAM, pictures written: ours and other libraries.

References are pytorch-grad-cam's recipe, image by image, and captum in batches. The network is the paper's AlexNet,
untrained.
"""

import argparse
import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam
from PIL import Image
from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel
from pytorch_grad_cam.utils.image import deprocess_image, show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from torch.nn import functional

import runs
from benchmarks.setting import Ratio, add_photographs, conditions, photographs
from benchmarks.training import K, paper_config
from datasets import decoded_side, open_dataset
from deepcluster.launch import PACKAGES, describe_run
from deepcluster.models import ClusterNet, untrained
from deepcluster.trained import network
from explain.attribution.registry import METHODS, PHOTOGRAPH, Asked, parse_all
from explain.choice import Choice
from explain.drawing import draw_missing
from explain.record import Explanation
from explain.rendering import draw, encode
from explain.scores import score_images
from explain.subject import Subject, find_pictures
from machine.device import synchronise, use_device
from machine.files import write_atomic
from runs import Clusters, Run

THREE = ("grad_cam", "guided_backprop", "guided_grad_cam")
CHOICE = Choice((Asked(PHOTOGRAPH), *parse_all(THREE)))


@dataclass(frozen=True)
class Batch:
    """Images as the others are given them."""

    rows: np.ndarray  # (B,)
    images: Tensor  # (B, 3, H, W), wants a gradient
    targets: Tensor  # (B,) logit numbers


@dataclass(frozen=True)
class Task:
    """What everybody explains, and where the pictures go."""

    subject: Subject
    model: ClusterNet  # the subject's network as it was trained; ours is fused
    batch: int
    scratch: Path  # a folder for ours and one for the others
    explanation: Explanation

    @property
    def rows(self) -> np.ndarray:
        return self.explanation.rows

    @property
    def others(self) -> Path:
        return self.scratch / "others"

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """All images, in batches of `size` (default: the task's)."""
        size = size or self.batch
        for begin in range(0, len(self.rows), size):
            rows = self.rows[begin : begin + size]
            images = self.subject.images(rows)
            targets = torch.tensor(self.subject.clusters.assignment[rows], device=images.device)
            yield Batch(rows, images.requires_grad_(), targets)

    def photographs(self, batch: Batch) -> np.ndarray:
        """Its images for the eye: (B, H, W, 3) uint8."""
        return self.subject.photographs(batch.images.detach())


@dataclass(frozen=True)
class Contestant:
    """A way to explain all images of a task."""

    name: str
    work: Callable[[Task], None]


@dataclass(frozen=True)
class Timing:
    """A contestant's result."""

    contestant: Contestant
    seconds: float
    images: int

    def __str__(self) -> str:
        rate, each = self.images / self.seconds, self.seconds / self.images * 1000
        return f"{self.contestant.name:<52}{rate:>8.1f} images/s {each:>8.1f} ms an image"


def add_options(parser: argparse.ArgumentParser) -> None:
    add_photographs(parser, limit=96, batch=32)


def run(options: argparse.Namespace) -> None:
    """`python -m benchmarks explain`."""
    warnings.filterwarnings("ignore", module="captum")
    root, device = photographs(options.data), use_device(options.device)
    with tempfile.TemporaryDirectory() as scratch:
        trained = a_run(Path(scratch) / "exp", root, options.limit, options.size, device)
        task = prepare(trained, options.batch, Path(scratch), device)
        print(f"{len(task.rows)} images at {options.size} px, AlexNet of the paper, untrained, batch {task.batch}")
        print(conditions(runs.make_stamp(device, ("benchmarks", "explain", *PACKAGES))))
        FLOOR.work(task)  # warm up
        measure(FLOOR, task)
        ours, look = measure(OURS, task), measure(LOOK, task)
        theirs = [measure(one, task) for one in REFERENCES]
        for one in theirs:
            print(f"{Ratio(one.contestant.name, one.seconds / ours.seconds)}", end="; ")
            print(f"with the forward for tables and map: {one.seconds / (ours.seconds + look.seconds):.2f}")


def a_run(path: Path, root: Path, limit: int, size: int, device: torch.device) -> Run:
    """A run directory of the paper's AlexNet, untrained, with images dealt to its clusters: enough to be explained."""
    config = paper_config(size)
    dataset = open_dataset(str(root), decoded_side(size), limit, at_most=config.decode_at_most)
    meta = describe_run(config, dataset, limit, device)
    run = runs.begin(path, meta, dataset.ids, dataset.labels, dataset.skipped)
    run.write_clusters(1, Clusters(np.arange(len(dataset)) % K, np.arange(len(dataset), dtype=np.float32)))
    run.write_checkpoint(1, {"epoch": 1, "model": meta.model, "state": untrained(config).state_dict()})
    return run


def prepare(run: Run, batch: int, scratch: Path, device: torch.device) -> Task:
    """All images of epoch 1, and the scores that ours needs for its choice: they are timed apart."""
    subject = Subject(run, 1, find_pictures(run, None, None, None, device), None, device)
    folder = scratch / "ours"
    (folder / ".pieces").mkdir(parents=True)
    scores = score_images(subject, folder, CHOICE.map)
    explanation = Explanation(subject, CHOICE, folder, scores, subject.pictures.present)
    task = Task(subject, network(run).to(device), batch, scratch, explanation)
    task.others.mkdir()
    return task


def measure(contestant: Contestant, task: Task) -> Timing:
    """Time a contestant, and print the result."""
    begin = time.perf_counter()
    contestant.work(task)
    synchronise(task.subject.device)
    timing = Timing(contestant, time.perf_counter() - begin, len(task.rows))
    print(timing, flush=True)
    return timing


def one_backward(task: Task) -> None:
    """What no method goes below."""
    for batch in task.batches():
        score = task.model(batch.images).gather(1, batch.targets[:, None]).sum()
        torch.autograd.grad(score, batch.images)


def our_pictures(task: Task) -> None:
    draw_missing(task.explanation)


def our_scores(task: Task) -> None:
    score_images(task.subject, Path(tempfile.mkdtemp(dir=task.scratch)), CHOICE.map)


def captum(task: Task, product_by_hand: bool, write: Callable[[Task, Batch, dict[str, np.ndarray]], None]) -> None:
    """captum's three methods in batches; `write` makes the pictures of a batch from the maps of each method.

    By hand, Guided Grad-CAM is the product of the two others; its own class computes both again.
    """
    heat_method, guided_method = LayerGradCam(task.model, task.model.cam_layer), GuidedBackprop(task.model)
    product_method = GuidedGradCam(task.model, task.model.cam_layer)
    for batch in task.batches():
        small = heat_method.attribute(batch.images, batch.targets, relu_attributions=True)
        heat = functional.interpolate(small, batch.images.shape[2:], mode="bilinear")
        guided = guided_method.attribute(batch.images, batch.targets)
        if product_by_hand:
            product = guided * heat
        else:
            product = product_method.attribute(batch.images, batch.targets, interpolate_mode="bilinear")
        maps = dict(zip(THREE, (heat, guided, product), strict=True))
        write(task, batch, {name: found.detach().cpu().numpy() for name, found in maps.items()})


def grad_cam_recipe(task: Task) -> None:
    """As pytorch-grad-cam's examples do it: each image alone."""
    with GradCAM(task.model, [task.model.cam_layer]) as cam:
        guided_model = GuidedBackpropReLUModel(copy.deepcopy(task.model), task.subject.device)  # it swaps modules
        for one in task.batches(1):
            target, image = int(one.targets[0]), one.images.detach()
            heat = cam(image, [ClassifierOutputTarget(target)])[0]
            guided = guided_model(image, target_category=target)
            eye, product = task.photographs(one)[0], heat[..., None] * guided
            ordinary_picture(task.others, int(one.rows[0]), eye, heat, guided, product)


def pictures_of_ours(task: Task, batch: Batch, maps: dict[str, np.ndarray]) -> None:
    """Somebody's maps, drawn as ours are."""
    eyes = task.photographs(batch)
    for i, row in enumerate(batch.rows):
        for name in THREE:
            picture = draw(METHODS[name], maps[name][i], eyes[i])
            write_atomic(task.others / f"{row}-{name}.png", encode(picture, CHOICE.format), durable=False)


def ordinary_pictures(task: Task, batch: Batch, maps: dict[str, np.ndarray]) -> None:
    """Somebody's maps, drawn as pytorch-grad-cam's examples draw them."""
    eyes = task.photographs(batch)
    for i, row in enumerate(batch.rows):
        heat = maps["grad_cam"][i, 0]
        guided, product = (maps[name][i].transpose(1, 2, 0) for name in ("guided_backprop", "guided_grad_cam"))
        ordinary_picture(task.others, int(row), eyes[i], heat / max(heat.max(), 1e-9), guided, product)


def ordinary_picture(
    folder: Path, row: int, eye: np.ndarray, heat: np.ndarray, guided: np.ndarray, product: np.ndarray
) -> None:
    """An overlay and two gradients as default PNG; heat (H, W) in 0..1, gradients (H, W, 3)."""
    pictures = {
        "grad_cam": show_cam_on_image(eye.astype(np.float32) / 255, heat, use_rgb=True),
        "guided_backprop": deprocess_image(guided),
        "guided_grad_cam": deprocess_image(product),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"{row}-{name}.png")


FLOOR = Contestant("one forward, one backward, nothing drawn", one_backward)
OURS = Contestant("explain: three methods and the photograph", our_pictures)
LOOK = Contestant("  its forward over all images for tables and map", our_scores)
REFERENCES = (
    Contestant("captum, product by hand, our pictures", partial(captum, product_by_hand=True, write=pictures_of_ours)),
    Contestant("captum, product by hand", partial(captum, product_by_hand=True, write=ordinary_pictures)),
    Contestant("captum's GuidedGradCam", partial(captum, product_by_hand=False, write=ordinary_pictures)),
    Contestant("pytorch-grad-cam's recipe, image by image", grad_cam_recipe),
)
