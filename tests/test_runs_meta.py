"""run.json: what is written is read back; what is missing or wrong is named; runs of schema 1 still open."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import a_meta, run_module

import runs
from console import UserError
from deepcluster import cluster
from deepcluster.journal import Journal
from runs.meta import Meta

# run.json as commit 094ec25 wrote it.
SCHEMA_1 = {
    "schema": 1,
    "kind": "deepcluster",
    "dataset": {"name": "coins", "source": "/coins", "key": "k", "limit": None, "images": 48},
    "view": {"size": 64, "center_crop": False, "decoded_side": 73},
    "model": {"arch": "alexnet", "size": 64, "k": 4, "sobel": False, "neck": "mlp"},
    "config": {"preset": "stable", "whiten": -0.25, "seed": 31},
    "seed": 31,
    "threads": 2,
    "device": "cpu (x86_64)",
    "memory_format": "channels_last",
    "versions": {"torch": "2.15.0", "faiss": "1.15.1"},
}


def test_what_is_written_is_read_back(tmp_path):
    meta = a_meta(1, imported="checkpoint.pth.tar", config={"lr": 0.1})
    run = runs.begin(tmp_path / "exp", meta, ["a"], None, [])
    again = runs.open_run(run.path)
    assert again.meta == meta
    assert again.identity == run.identity
    assert len(run.identity) == 16


def test_a_run_of_schema_1_opens_under_todays_names(tmp_path):
    meta = Meta.from_json(SCHEMA_1, tmp_path)
    assert meta.config == {"preset": "stable", "whiten_power": -0.25, "seed": 31, "decode_at_most": 73}
    assert meta.stamp.threads == 2
    assert meta.view.decode_at_most is None
    assert meta.view.name == "photograph"
    supervised = {key: value for key, value in SCHEMA_1.items() if key != "memory_format"} | {"kind": "supervised"}
    assert Meta.from_json(supervised, tmp_path).stamp.memory_format == "channels_last"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 99}, "newer version"),
        ({"schema": "1"}, "no schema"),
        ({"kind": 3}, "kind is 3"),
        ({"view": None}, "view is not a table"),
        ({"view": {"size": 64, "center_crop": False}}, "no view.decoded_side"),
        ({"dataset": SCHEMA_1["dataset"] | {"images": "many"}}, "dataset.images is 'many'"),
        ({"threads": True}, "stamp.threads is True"),
        ({"config": []}, "config is a list"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        Meta.from_json(SCHEMA_1 | change, tmp_path / "run.json")
    with pytest.raises(UserError, match=r"no schema"):
        Meta.from_json([], tmp_path / "run.json")


def test_begin_continue_or_refuse(tmp_path):
    assert runs.find_begun(tmp_path / "exp", "deepcluster") is None
    meta = a_meta(1, config={"lr": 0.1, "weight_decay": 0.0})
    runs.begin(tmp_path / "exp", meta, ["a"], None, [])
    run = runs.find_begun(tmp_path / "exp", "deepcluster")
    runs.refuse_differences(run, meta)
    with pytest.raises(UserError, match="another kind"):
        runs.find_begun(tmp_path / "exp", "supervised")
    with pytest.raises(UserError, match=r"--weight-decay 0.0 \(now 1\)"):
        runs.refuse_differences(run, a_meta(1, config={"lr": 0.1, "weight_decay": 1}))
    with pytest.raises(UserError, match="1 usable images, now 2"):
        runs.refuse_differences(run, replace(meta, dataset=replace(meta.dataset, images=2)))
    with pytest.raises(UserError, match="other images"):
        runs.refuse_differences(run, a_meta(dataset=runs.Source("y", "y", "other", None, 5)))
    with pytest.raises(UserError, match="--limit None"):
        runs.refuse_differences(run, a_meta(dataset=runs.Source("x", "x", "key", 3, 5)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"thesis\.txt"):
        runs.find_begun(tmp_path / "mine", "deepcluster")


def test_a_training_begun_with_schema_1_is_continued(coins, tmp_path, monkeypatch):
    """Stopped after its first epoch, whose row schema 1 filled with None: it ends with the same clusters."""
    settings = {
        "view": "photograph",
        "arch": "alexnet_fine",
        "size": 32,
        "k": 4,
        "batch": 16,
        "save_every": 1,
        "epochs": 3,
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    whole = ["deepcluster", "train", coins, "--exp", tmp_path / "whole", *options]
    assert run_module(*whole).returncode == 0

    clustered = Journal.clustered

    def stop(journal, epoch, found):
        if epoch == 2:
            raise KeyboardInterrupt
        clustered(journal, epoch, found)

    monkeypatch.setattr(Journal, "clustered", stop)
    with pytest.raises(KeyboardInterrupt):
        cluster(coins, tmp_path / "old", **settings)
    path = tmp_path / "old" / "run.json"
    content = json.loads(path.read_text()) | {"schema": 1}
    content["config"]["whiten"] = content["config"].pop("whiten_power")
    for name in ("decode_at_most", "view", "facts", "facts_weight", "spectrum_epochs"):  # younger than it
        del content["config"][name]
    del content["view"]["decode_at_most"], content["view"]["name"], content["imported"]
    path.write_text(json.dumps(content))
    former = {"head_agreement": "head_share", "loss_last_quarter": "late_loss"}
    latest = torch.load(tmp_path / "old" / "latest.pt", weights_only=True)
    [row] = latest["log"]
    latest["log"] = [{former.get(name, name): value for name, value in row.items()} | {"stability": None}]
    torch.save(latest, tmp_path / "old" / "latest.pt")
    (tmp_path / "old" / "log.csv").unlink()
    command = ["deepcluster", "train", coins, "--exp", tmp_path / "old", *options[1:]]  # whatever the view is today
    result = run_module(*command)
    assert result.returncode == 0, result.stderr
    assert "continuing after epoch 1 of 3" in result.stderr + result.stdout
    for name in ("clusters.csv", "clusters/epoch_0003.npz"):
        assert (tmp_path / "old" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [row.keys() for row in runs.open_run(tmp_path / "old").log()] == [
        row.keys() for row in runs.open_run(tmp_path / "whole").log()
    ]
    assert "--epochs 3 (now 4)" in run_module(*command, "--epochs=4").stderr
