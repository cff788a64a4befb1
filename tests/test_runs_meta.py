"""run.json: what is written is read back; what is missing or wrong is named; runs of schema 1 still open."""

import json
import shutil

import pytest
from conftest import a_meta, run_module

import runs
from console import UserError
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
    meta = a_meta(imported="checkpoint.pth.tar", config={"lr": 0.1})
    run = runs.begin(tmp_path / "exp", meta, ["a"], None, [])
    again = runs.open_run(run.path)
    assert again.meta == meta
    assert again.identity == run.identity
    assert len(run.identity) == 16


def test_a_run_of_schema_1_opens_under_todays_names(tmp_path):
    meta = Meta.from_json(SCHEMA_1, tmp_path)
    assert meta.config == {"preset": "stable", "whiten_power": -0.25, "seed": 31, "decoded_side": 73}
    assert meta.stamp.threads == 2
    assert meta.view.largest_side is None
    supervised = {key: value for key, value in SCHEMA_1.items() if key != "memory_format"} | {"kind": "supervised"}
    assert Meta.from_json(supervised, tmp_path).stamp.memory_format == "channels_last"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 99}, "newer version"),
        ({"schema": "1"}, "no schema"),
        ({"kind": 3}, "kind is 3"),
        ({"view": None}, "view. is not a table"),
        ({"view": {"size": 64, "center_crop": False}}, "no view.decoded_side"),
        ({"dataset": SCHEMA_1["dataset"] | {"images": "many"}}, "dataset.images is 'many'"),
        ({"threads": True}, "stamp.threads is True"),
        ({"config": []}, "config is \\[\\]"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        Meta.from_json(SCHEMA_1 | change, tmp_path / "run.json")
    with pytest.raises(UserError, match=r"no schema"):
        Meta.from_json([], tmp_path / "run.json")


def test_begin_continue_or_refuse(tmp_path):
    assert runs.find_begun(tmp_path / "exp", "deepcluster") is None
    meta = a_meta(config={"lr": 0.1, "weight_decay": 0.0})
    runs.begin(tmp_path / "exp", meta, ["a"], None, [])
    run = runs.find_begun(tmp_path / "exp", "deepcluster")
    runs.refuse_differences(run, meta)
    with pytest.raises(UserError, match="another kind"):
        runs.find_begun(tmp_path / "exp", "supervised")
    with pytest.raises(UserError, match=r"--weight-decay 0.0 \(now 1\)"):
        runs.refuse_differences(run, a_meta(config={"lr": 0.1, "weight_decay": 1}))
    with pytest.raises(UserError, match="other images"):
        runs.refuse_differences(run, a_meta(dataset=runs.Source("y", "y", "other", None, 5)))
    with pytest.raises(UserError, match="--limit None"):
        runs.refuse_differences(run, a_meta(dataset=runs.Source("x", "x", "key", 3, 5)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"thesis\.txt"):
        runs.find_begun(tmp_path / "mine", "deepcluster")


def test_a_training_begun_with_schema_1_is_continued(coins, tmp_path):
    """The same weights, whoever wrote run.json, log.csv and latest.pt."""
    import torch

    command = ["deepcluster", "train", coins, "--size", "64", "--k", "4", "--batch", "16", "--save-every", "1"]
    assert run_module(*command, "--exp", tmp_path / "new", "--epochs", "2").returncode == 0
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    path = tmp_path / "old" / "run.json"
    content = json.loads(path.read_text()) | {"schema": 1}
    content["config"]["whiten"] = content["config"].pop("whiten_power")
    del content["config"]["decoded_side"], content["view"]["largest_side"], content["imported"]
    path.write_text(json.dumps(content))
    former = {"nmi_previous": "stability", "head_agreement": "head_share", "loss_last_quarter": "late_loss"}
    latest = torch.load(tmp_path / "old" / "latest.pt", weights_only=True)
    latest["log"] = [{former.get(name, name): value for name, value in row.items()} for row in latest["log"]]
    torch.save(latest, tmp_path / "old" / "latest.pt")
    (tmp_path / "old" / "log.csv").unlink()
    result = run_module(*command, "--exp", tmp_path / "old", "--epochs", "2")
    assert result.returncode == 0, result.stderr
    assert "this run" in result.stdout
    assert "--epochs 2 (now 3)" in run_module(*command, "--exp", tmp_path / "old", "--epochs", "3").stderr
