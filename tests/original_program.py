"""What the original program leaves behind, made here as it writes it."""

import pickle

import numpy as np
import pytest
import torch
from conftest import photograph
from torch import nn
from torchvision.datasets import ImageFolder

from datasets import open_dataset
from deepcluster.views import Frames, fixed_view

K, EMPTY = 5, 2  # cluster 2 of 5 is empty, so the original's labels are 0, 1, 2, 3 for clusters 0, 1, 3, 4


def original_network(k=K):
    """The layer list of the original's AlexNet, with Sobel, as its state_dict names it."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 2
    shapes = ((96, 11, 4, 2, True), (256, 5, 1, 2, True), (384, 3, 1, 1, False), (384, 3, 1, 1, False))
    for out, kernel, stride, padding, pool in (*shapes, (256, 3, 1, 1, True)):
        layers += [nn.Conv2d(channels, out, kernel, stride, padding), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if pool else []
        channels = out
    network = nn.Module()
    network.sobel = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 3, padding=1))
    network.features = nn.Sequential(*layers)
    network.classifier = nn.Sequential(
        nn.Dropout(0.5), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU()
    )
    network.top_layer = nn.Linear(4096, k)
    return network.eval()


def logits_of(network, images):
    x = network.sobel(images)
    x = network.features(x)
    return network.top_layer(network.classifier(x.flatten(1)))


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """An original's exp folder: a checkpoint, cluster logs in every known shape, and the photographs."""
    root = tmp_path_factory.mktemp("original")
    data = root / "photographs"
    for i in range(30):
        photograph(data / "cab"[i % 3] / f"{i:02d}.jpg", i, hue=i % 3)
    (data / "a" / "00-broken.jpg").write_bytes(b"nothing")  # counted by ImageFolder, unusable for us
    samples = ImageFolder(str(data)).samples
    rng = np.random.default_rng(0)
    cluster_of = {i: int(c) for i, c in enumerate(rng.choice([0, 1, 3, 4], len(samples)))}
    lists = [[i for i in rng.permutation(len(samples)).tolist() if cluster_of[i] == c] for c in range(K)]
    renamed = {c: rank for rank, c in enumerate(sorted(set(cluster_of.values())))}
    elsewhere = [f"/home/somebody/coins/{path.split('photographs/')[1]}" for path, _ in samples]
    pairs = [(elsewhere[i], renamed[c]) for c, members in enumerate(lists) for i in members]
    network = original_network()
    dataset = open_dataset(str(data), 256)
    images = fixed_view(Frames(dataset.pixels, torch.device("cpu")), np.arange(len(dataset)), 224, crop=True)
    with torch.no_grad():
        logits = logits_of(network, images)
        network.top_layer.bias -= logits.mean(0)  # without training it would say the same of every image
    predicted = dict(zip(dataset.ids, (logits - logits.mean(0)).argmax(1).tolist(), strict=True))
    state = {name.replace("features.", "features.module."): value for name, value in network.state_dict().items()}
    torch.save({"epoch": 9, "arch": "alexnet", "state_dict": state, "optimizer": {}}, root / "checkpoint.pth.tar")
    older = [[0, 1], [2]]
    shapes = {
        "lists": [older, lists],
        "triples": [older, (lists, pairs, 8)],
        "triple": (lists, pairs, 8),
        "published": [(path, cluster_of[i]) for i, path in enumerate(elsewhere)],
        "numpy": [[np.array(members, dtype=np.int64) for members in lists]],
        "scalars": [[[np.int64(i) for i in members] for members in lists]],
    }
    rng.shuffle(shapes["published"])
    for name, content in shapes.items():
        (root / name).write_bytes(pickle.dumps(content, protocol=2))
    truth = {path.split("photographs/")[1]: cluster_of[i] for i, (path, _) in enumerate(samples)}
    return {"root": root, "data": data, "truth": truth, "network": network, "predicted": predicted}
