"""`python -m supervised speedrun`: one trial, and a row of the table."""

import torch
from test_supervised_data import blobs
from tqdm import tqdm

from supervised.learners import evaluate
from supervised.speedrun import Trial, measure_trial, train_trial


def test_a_trial_learns_in_few_epochs_and_comes_from_its_seed():
    net = train_trial(Trial(2, 3), blobs(2000, 1), 10, seed=1)
    assert evaluate(net, blobs(500, 2)).accuracy > 0.95
    again = train_trial(Trial(2, 3), blobs(2000, 1), 10, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))


def test_the_tables_row_is_a_mean_over_seeds():
    row = measure_trial(Trial(1, 1), blobs(600, 1), blobs(100, 2), 10, [1, 2], tqdm(disable=True))
    assert list(row) == ["convolutions", "epochs", "seconds", "validation", "test", "reached"]
    assert "±" in row["test"]
    assert row["reached"] == ""
