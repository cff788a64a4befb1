"""Baselines beside every agreement, and what they say of it."""

import numpy as np
import pytest
import torch
from conftest import ROOT, a_meta

import runs
from datasets import Dataset, Pixels, look, open_dataset
from deepcluster.agreement import MEASURES, agreement
from deepcluster.baselines import BASELINES, cluster_baselines, measure_baselines, verdict
from deepcluster.config import STABLE, Config
from deepcluster.figures import draw
from runs import Clusters, Run

CPU = torch.device("cpu")
PLAIN = ["pixels", "untrained", "ruler", "spectrum"]  # of a run that clusters no facts
EUROS = ROOT.parent / "shared" / "data" / "euro_coins"


def a_config(**changes) -> Config:
    return Config(**(STABLE | {"size": 64, "decode_at_most": 73, "k": 4} | changes))


def test_every_baseline_clusters_and_is_measured(coins):
    dataset = open_dataset(str(coins), 73)
    found = cluster_baselines(dataset, a_config(), 4, CPU)
    assert list(found) == PLAIN
    for one in found.values():
        assert one.assignment.shape == (48,)
        assert one.features.shape[0] == 48
        assert np.isfinite(one.features).all()
    measured = measure_baselines(dataset, a_config(), 4, CPU)
    for name, one in found.items():
        assert measured[name] == agreement(dataset.labels, one.assignment)  # twice the same
    assert measured["ruler"]["ami"] > 0.8  # these discs differ in their colour alone
    assert measured["spectrum"]["ami"] < measured["ruler"]["ami"]


def test_baselines_cope_with_pictures_that_are_all_alike():
    size = 73 * 73 * 3
    pixels = Pixels(
        [np.zeros(6 * size, np.uint8)], np.zeros(6, np.int64), size * np.arange(6), np.full((6, 2), 73, np.int64)
    )
    dataset = Dataset("black", "black", "black", "black", list("abcdef"), None, [], pixels)
    found = cluster_baselines(dataset, a_config(), 3, CPU)
    assert all(np.isfinite(one.features).all() for one in found.values())


def test_only_the_untrained_network_sees_the_view(coins):
    """The others are of the photograph, whatever the network is given: runs of two views stand beside the same."""
    dataset = open_dataset(str(coins), 73)
    plain = cluster_baselines(dataset, a_config(), 4, CPU)
    config = a_config(view="unrolled", neck="spectrum")
    seen = cluster_baselines(look(dataset, "unrolled", 64), config, 4, CPU)
    for name in ("pixels", "ruler", "spectrum"):
        np.testing.assert_array_equal(seen[name].features, plain[name].features)
    assert not np.array_equal(seen["untrained"].assignment, plain["untrained"].assignment)


def test_facts_are_clustered_without_the_network_too(coins):
    """Where a training clusters size or colour beside its features, the spectrum with these is what it must surpass."""
    dataset = look(open_dataset(str(coins), 73), "unrolled", 64)
    config = a_config(view="unrolled", neck="spectrum", facts="colour", facts_weight=1.2)
    found = cluster_baselines(dataset, config, 4, CPU)
    assert list(found) == [*PLAIN, "facts"]
    spectrum, together = found["spectrum"].features, found["facts"].features
    np.testing.assert_array_equal(together[:, : spectrum.shape[1]], spectrum)
    assert together.shape[1] > spectrum.shape[1]
    measured = measure_baselines(dataset, config, 4, CPU)
    assert measured["facts"]["ami"] > measured["spectrum"]["ami"] + 0.3  # these discs differ in their colour alone


@pytest.mark.parametrize(
    ("ami", "baselines", "sentence"),
    [
        (
            0.448,
            {"pixels": 0.235, "ruler": 0.467},
            "AMI .45 with the labels; best baseline: ruler and colour .47: the clusters say no more than size and "
            "colour do.",
        ),
        (
            0.475,  # more, but not by more than chance
            {"ruler": 0.467},
            "AMI .47 with the labels; best baseline: ruler and colour .47: the clusters say no more than size and "
            "colour do.",
        ),
        (
            0.534,
            {"pixels": -0.003, "untrained": 0.298},  # a run from before there were four
            "AMI .53 with the labels; best baseline: untrained network .30: the clusters say more than any baseline.",
        ),
        (
            0.004,
            {"pixels": -0.003, "spectrum": 0.01},
            "AMI .00 with the labels; best baseline: unrolled spectrum .01: neither has to do with the labels.",
        ),
        (0.2, {}, "AMI .20 with the labels; no baseline was measured."),
        (0.2, {"of a later version": 0.4}, "AMI .20 with the labels; no baseline was measured."),
    ],
)
def test_verdict(ami, baselines, sentence):
    assert verdict(ami, {name: {"ami": value} for name, value in baselines.items()}) == sentence


def test_names_and_lines_tell_baselines_apart():
    for field in ("name", "title", "says", "line"):
        assert len({str(getattr(baseline, field)) for baseline in BASELINES.values()}) == len(BASELINES)


@pytest.mark.parametrize("names", [["pixels", "untrained"], [*BASELINES], ["of a later version"]])
def test_curves_are_drawn_with_the_baselines_of_any_version(names, tmp_path):
    run: Run = runs.begin(tmp_path / "exp", a_meta(), list("abcde"), list("xxyyy"), [])
    run.write_json("baselines.json", {name: dict.fromkeys(MEASURES, 0.1 * i) for i, name in enumerate(names)})
    run.write_clusters(1, Clusters(np.array([0, 0, 1, 1, 1]), np.zeros(5)))
    draw(run, [{"epoch": 1, "k": 2, "loss": 1.0, "nmi_previous": 0.5, "ami": 0.3, "purity": 0.6, "objective": 1.0}])
    assert (run.path / "figures" / "curves.png").stat().st_size > 5000


@pytest.mark.skipif(not EUROS.is_dir(), reason="about published photographs of euro coins, which are not shipped")
def test_ruler_and_colour_tell_denominations_of_euro_coins():
    dataset = open_dataset(str(EUROS), 146, limit=300)
    found = measure_baselines(dataset, a_config(size=128, decode_at_most=146), 20, CPU)
    assert found["ruler"]["ami"] > 0.35
    assert found["ruler"]["ami"] > found["pixels"]["ami"] + 0.1
