import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from nursery import begin_child, run_child
from PIL import Image

import runs
from console import command
from runs.meta import Stamp

pytest_plugins = ["original_program"]

ROOT = Path(__file__).parent.parent
OURS = ("DEEPCLUSTER_CACHE", "MNIST_DIR")  # variables that only we read
MNIST = Path(os.environ.get("MNIST_DIR") or ROOT.parent / "shared" / "data" / "mnist").absolute()
needs_mnist = pytest.mark.skipif(
    not MNIST.is_dir(),
    reason="about the published digits, which are not shipped: `bash scripts/test.sh` finds or fetches them, and found "
    "no source",
)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """A cache of its own: tests neither use nor fill the user's."""
    before = os.environ.get("DEEPCLUSTER_CACHE")
    os.environ["DEEPCLUSTER_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield Path(os.environ["DEEPCLUSTER_CACHE"])
    if before is None:
        del os.environ["DEEPCLUSTER_CACHE"]
    else:
        os.environ["DEEPCLUSTER_CACHE"] = before


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own that can be full: `small_disk("16m")` mounts it, or gives it another size."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def of_size(size: str) -> Path:
        remount = "remount," if os.path.ismount(disk) else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{remount}size={size}", "tmpfs", disk], capture_output=True
        )
        if done.returncode:
            pytest.skip("a disk that is full must be mounted, which this user may not: run as root (CI does)")
        return disk

    yield of_size
    if os.path.ismount(disk):
        subprocess.run(["umount", disk], check=True)


def run_module(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` as a user would call it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    words = [str(word) for word in arguments]
    if all(name in OURS for name in variables):
        return run_child(words, cwd or ROOT, environment)
    return subprocess.run(  # what Python, torch or the C library reads when it starts
        [sys.executable, "-m", *words], cwd=cwd or ROOT, env=environment, capture_output=True, text=True
    )


def kill_module(when: float | Callable[[], bool], *arguments: object) -> bool:
    """Begin `python -m ...` and kill it after so many seconds, or as soon as something is so; whether it was at work.

    Seconds meet any instant, and on a machine with other work none: then what it has written says when.
    """
    child = begin_child([str(word) for word in arguments], ROOT, os.environ | {"PYTHONPATH": str(ROOT)})
    if callable(when):
        while child.is_alive() and not when():
            child.join(0.005)
    else:
        child.join(when)
    child.kill()
    child.join()
    return child.exitcode == -signal.SIGKILL


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """Assert that a command ended as bad input must: exit code 2 and one sentence. Returns the sentence."""
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


def call_main(main, name, monkeypatch, capsys, *words) -> tuple[int, str, str]:
    """A package's command in this process: exit code, what it said, the sentence of its refusal."""
    monkeypatch.setattr(sys, "argv", [f"python -m {name}", *map(str, words)])
    code = 0
    try:
        command(main)
    except SystemExit as stop:
        code = stop.code or 0
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (code == 2), said.err
    return code, said.out, errors[0] if errors else ""


def a_meta(images: int = 5, **changes) -> "runs.Meta":
    """A run.json, of so many images, that holds what every one must."""
    known = {
        "kind": "deepcluster",
        "dataset": runs.Source("x", "x", "key", None, images),
        "view": runs.View(64, False, 73),
        "model": {},
        "config": {},
        "seed": 1,
        "stamp": Stamp(1),
    }
    return runs.Meta(**(known | changes))


def photograph(path: Path, seed: int, side: int = 48, hue: int = 0) -> None:
    """A small real JPEG: a disc whose colour is its class, on noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 130, (side, side, 3)).astype(np.uint8)
    y, x = np.mgrid[:side, :side]
    disc = (x - side / 2) ** 2 + (y - side / 2) ** 2 < (side * rng.uniform(0.3, 0.4)) ** 2
    colours = [(200, 60, 40), (40, 190, 70), (60, 70, 200), (220, 210, 60)]
    pixels[disc] = np.clip(np.array(colours[hue % 4]) + rng.integers(-25, 25, (int(disc.sum()), 3)), 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


@pytest.fixture(scope="session")
def coins(tmp_path_factory) -> Path:
    """48 small photographs in four class folders."""
    root = tmp_path_factory.mktemp("photographs") / "coins"
    for i in range(48):
        photograph(root / "abcd"[i % 4] / f"{i:02d}.jpg", i, hue=i % 4)
    return root


# Minutes each: begun first, so that at the end no worker is left alone with one of them.
LONG = ("test_deepcluster_train", "test_deepcluster_together", "test_deepcluster_gradcam", "test_scripts_colab")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_addoption(parser):
    told = (
        "attacks of each kind in tests/test_hostile.py, examples of each property in tests/test_properties.py (a few)"
    )
    parser.addoption("--fuzz", type=int, metavar="N", help=told)


def pytest_configure(config):
    """What hypothesis does: as few examples as CI has time for, always the same, so that it fails for who broke it."""
    asked = config.getoption("--fuzz")
    settings.register_profile(
        "ours",
        derandomize=asked is None,
        max_examples=asked or 60,
        deadline=None,  # machines are as busy as they are
        database=None,
        suppress_health_check=[HealthCheck.too_slow],  # for the same reason
    )
    settings.load_profile("ours")


def strike(path: Path, seed: int, kind: int) -> None:
    """A photograph of a grey disc somewhere on a darker ground, 120 x 160; struck on it, at any angle, a design."""
    rng = np.random.default_rng(seed)
    x, y, radius = rng.uniform(66, 94), rng.uniform(54, 66), rng.uniform(40, 48)
    pixels = np.full((120, 160, 3), 55, np.uint8)
    cv2.circle(pixels, (round(x), round(y)), round(radius), (190, 185, 175), -1, cv2.LINE_AA)
    turn = rng.uniform(0, 2 * np.pi)
    for ray in turn + np.array([[0, 2.1, 4.2], [0, 0.7, 3.1]][kind]):
        to = (round(x + 0.8 * radius * np.cos(ray)), round(y + 0.8 * radius * np.sin(ray)))
        cv2.line(pixels, (round(x), round(y)), to, (110, 105, 100), 5, cv2.LINE_AA)
    noisy = pixels + rng.integers(-6, 7, pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def struck(tmp_path_factory) -> Path:
    """24 coins of two designs in two class folders."""
    root = tmp_path_factory.mktemp("mint") / "struck"
    for i in range(24):
        strike(root / "ab"[i % 2] / f"{i:02d}.png", i, i % 2)
    return root
