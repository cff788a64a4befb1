"""Label randomisation: what is learnt by heart, whose maps follow it, and what happens after a stop."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import runs
from deepcluster import by_heart, cluster
from deepcluster.by_heart import learn_by_heart, recipe
from deepcluster.trained import run_config
from deepcluster.views import Frames
from explain.attribution import parse_all
from explain.audit import shuffling
from explain.audit.findings import DECIDES, TAUGHT_OTHERS, Asked, Sample, what_is_said
from explain.audit.shuffling import KNOWN, SHUFFLED, TRUE, draw_rows, judge, measure
from explain.subject import Subject, find_pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sample(coins, tmp_path_factory):
    """Discs of four colours, seen as they are; clustered by nothing but their colour."""
    folder = tmp_path_factory.mktemp("shuffled")
    cluster(coins, folder / "exp", k=4, epochs=1, batch=8, size=64, view="photograph")
    run = runs.open_run(folder / "exp")
    subject = Subject(run, 1, find_pictures(run, None, None, None, CPU), None, CPU)
    return Sample(subject, None, subject.pictures.present, folder)


@pytest.fixture
def few(sample, monkeypatch):
    """Images of two colours, their frames, colours and the recipe."""
    monkeypatch.setattr(by_heart, "SHOWN", 32)
    pictures = sample.subject.pictures
    rows = np.array([i for i, name in enumerate(pictures.dataset.ids) if name[0] in "ac"])[:12]
    frames = Frames(pictures.frames.pixels.take(rows), CPU)
    labels = np.array([pictures.dataset.ids[i][0] == "c" for i in rows]).astype(np.int64)
    return frames, labels, recipe(run_config(sample.subject.run), len(rows), 4, seed=5)


def test_a_stop_changes_nothing(few, tmp_path, monkeypatch):
    frames, labels, config = few
    whole, shares = learn_by_heart(config, frames, labels, 4, tmp_path / "whole.pt", 3)
    assert len(shares) == 3
    train_epoch = by_heart.train_epoch

    def stopped(*arguments):
        if arguments[5] == 3:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(by_heart, "SAVE_SHARE", 1e9)  # after every epoch
    monkeypatch.setattr(by_heart, "train_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        learn_by_heart(config, frames, labels, 4, tmp_path / "kept.pt", 3)
    monkeypatch.setattr(by_heart, "train_epoch", train_epoch)
    again, shares_again = learn_by_heart(config, frames, labels, 4, tmp_path / "kept.pt", 3)
    assert shares_again == shares
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=0, atol=0)


def test_what_was_kept_is_read_or_begun_anew(few, tmp_path):
    frames, labels, config = few
    kept = tmp_path / "kept.pt"
    net, shares = learn_by_heart(config, frames, labels, 4, kept, 1)
    begun = by_heart.resume(config, CPU, 4, kept)
    assert (begun.epoch, begun.log) == (1, [{"epoch": 1, "share": shares[0]}])
    torch.testing.assert_close(begun.model.state_dict(), net.state_dict(), rtol=0, atol=0)
    kept.write_bytes(kept.read_bytes()[:500])
    assert by_heart.resume(config, CPU, 4, kept).epoch == 0


def test_learning_ends_when_all_is_known(few, tmp_path):
    frames, labels, config = few
    easy = replace(config, epochs=10)
    net, shares = learn_by_heart(easy, frames, labels, 2, tmp_path / "kept.pt")
    assert shares[-1] >= 0.99
    assert len(shares) < 10
    assert all(share < 0.99 for share in shares[:-1])
    assert not net.training


class Taught:
    """A subject that learns at once: its twin is itself, and what learns shuffled clusters is not trained at all."""

    def __init__(self, subject, share):
        self.real, self.share, self.labels = subject, share, []

    def __getattr__(self, name):
        return getattr(self.real, name)

    def taught(self, rows, labels, epochs, seed, kept, stop_after=None):
        self.labels.append(labels)
        return (self.real.untrained, [0.1, self.share]) if stop_after is None else (self.real.model, [0.2, 1.0])


@pytest.mark.parametrize(("asks", "verdict"), [(False, "hardly asks"), (True, "asks what was learnt: no more")])
def test_only_maps_that_ask_for_the_clusters_change(sample, monkeypatch, asks, verdict):
    """Planted: a method that shows the photograph, and one that shows a place of the cluster's own."""

    def planted(subject, model, rows, targets, methods):
        maps = subject.images(rows).numpy()[:, :1] * 1.0
        if asks:
            maps = np.random.default_rng(targets.tolist()).random(maps.shape) * 0.1
            for one, target in zip(maps, targets.tolist(), strict=True):
                one[:, 16 * target : 16 * target + 16] += np.linspace(1, 2, 16)[:, None]
        return {"saliency": maps}

    monkeypatch.setattr(shuffling, "maps_of", planted)
    subject = Taught(sample.subject, 1.0)
    found = measure(replace(sample, subject=subject), Asked(parse_all(["saliency"]), 48, 1))
    shuffled, own = subject.labels
    assert sorted(shuffled) == sorted(own)
    assert (shuffled != own).any()
    (row,) = [one for one in found.findings if one.verdict and one.measure == TAUGHT_OTHERS.format(DECIDES)]
    assert what_is_said(found.findings, {}).methods["Saliency"][0].endswith(row.verdict)
    assert row.verdict.startswith(verdict), row
    assert row.control_value == pytest.approx(1, abs=0.01)  # its twin's


def test_what_was_not_learnt_decides_nothing(sample):
    found = measure(replace(sample, subject=Taught(sample.subject, 0.5)), Asked(parse_all(["saliency"]), 48, 1))
    known = {one.of: one for one in found.findings if one.measure == KNOWN}
    assert known[SHUFFLED].value == 0.5
    assert known[TRUE].value == 1
    assert known[SHUFFLED].control_value < 0.5
    rows = [one for one in found.findings if one.verdict]
    assert rows
    assert all(one.verdict == "undecided: only 50% of the shuffled clusters were learnt" for one in rows)
    assert "50% of shuffled clusters" in shuffling.conclude(found)[0]


def test_what_the_likenesses_say():
    rng = np.random.default_rng(0)
    low, middle, high = (level + rng.normal(0, 0.05, 40) for level in (0.1, 0.4, 0.7))
    assert judge(low, high, low, 1.0, 0) == "asks what was learnt: no more alike than maps of two images"
    assert judge(middle, high, low, 1.0, 0).startswith("asks in part what was learnt: by 0.29 less alike")
    assert judge(high, high, low, 1.0, 0).startswith("hardly asks")
    assert judge(low, high, low, 0.9, 0) == "undecided: only 90% of the shuffled clusters were learnt"
    assert judge(low, low + 0.02, low, 1.0, 0).startswith("undecided: taught the true clusters")  # the control is mute
    assert judge(low[:5], high[:5], low[:5], 1.0, 0) == ""


def test_images_are_of_clusters_that_have_enough(sample):
    subject = sample.subject
    rows = draw_rows(subject, np.random.default_rng(0))
    assert len({*rows.tolist()}) == len(rows) <= 40
    _, sizes = np.unique(subject.clusters.assignment[rows], return_counts=True)
    assert sizes.max() <= 10
    clusters = SimpleNamespace(assignment=np.array([0] * 30 + [1] * 4 + [2] + [-1] * 5))
    small = SimpleNamespace(clusters=clusters, pictures=SimpleNamespace(present=np.arange(40)))
    chosen = clusters.assignment[draw_rows(small, np.random.default_rng(0))]
    assert np.bincount(chosen).tolist() == [10, 4]  # of a single image there is nothing to learn
    small.pictures.present = np.array([0, 34])
    assert not len(draw_rows(small, np.random.default_rng(0)))


def test_it_can_be_left_out_and_one_cluster_has_nothing_to_shuffle(sample, monkeypatch):
    asked = Asked(parse_all(["saliency"]), 48, 1)
    assert "--shuffled 0" in measure(sample, replace(asked, shuffled=0)).missing[0]
    monkeypatch.setattr(shuffling, "draw_rows", lambda subject, rng: np.arange(1))
    assert "two clusters" in measure(sample, asked).missing[0]
    monkeypatch.undo()
    monkeypatch.setattr(type(sample.subject), "taught", lambda *_: None)
    assert "other images" in measure(sample, asked).missing[0]
