"""Other test sets, ensembles, the table of results, and the numbers in them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MNIST, needs_mnist, refused, run_module
from PIL import Image
from test_supervised_data import write_labelled
from torch.testing import assert_close

import runs
from console import UserError
from supervised.__main__ import build_parser
from supervised.evaluate import (
    accuracy_interval,
    markdown_table,
    measure_reliability,
    open_finished,
    tabulate_results,
    transform_images,
    vote,
)
from supervised.launch import train_command


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A labelled set, and two networks trained on it."""
    root = tmp_path_factory.mktemp("evaluate")
    data = write_labelled(root / "blobs")
    for model in ("simple_conv", "mlp"):
        arguments = ["train", str(data), "--model", model, "--epochs", "4", "--batch", "16", "--exp", str(root / model)]
        train_command(build_parser().parse_args(arguments))
    return data, root / "simple_conv", root / "mlp"


def run_command(capsys, *arguments: object) -> str:
    from supervised import evaluate

    options = build_parser().parse_args(list(map(str, arguments)))
    getattr(evaluate, f"{arguments[0]}_command")(options)
    return capsys.readouterr().out


def test_votes_by_hand():
    answers = np.array([[1, 7, 3, 9], [1, 2, 3, 4], [5, 2, 8, 0]])
    assert vote(answers, np.ones((3, 10))).tolist() == [1, 2, 3, 0]  # among equals the smaller
    weight = np.ones((3, 10))
    weight[0, 7] = 5
    weight[2, 8] = 2.5
    assert vote(answers, weight).tolist() == [1, 7, 8, 0]
    logits = torch.eye(10)[[0, 0, 0, 1]]
    assert measure_reliability(logits, torch.tensor([0, 0, 5, 1]))[:3] == pytest.approx([2 / 3, 1, 0])


def test_wilsons_interval_against_published_values():
    assert accuracy_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert accuracy_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_transformed_images_go_right_and_down():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 5, 6] = 1
    assert transform_images(image, 0, 3)[0, 0, 8, 9] == 1
    assert_close(transform_images(transform_images(image, 90, 0), -90, 0), image, atol=1e-4, rtol=0)


def test_its_own_test_set_turned_and_another_one(pair, tmp_path, capsys):
    data, conv, _ = pair
    accuracy = runs.open_run(conv).read_json("result.json")["test_accuracy"]
    said = run_command(capsys, "test", "--run", conv)
    assert f"accuracy {accuracy:.4f} (95 % interval" in said
    assert "of 24 wrong" in said
    said = run_command(capsys, "test", "--exp", conv, "--rotate", 90, "--shift", 9)
    assert "turned by 90 degrees and shifted by 9 pixels" in said
    assert float(said.split("accuracy ")[1].split()[0]) < accuracy
    other = tmp_path / "other"
    shutil.copytree(data / "train" / "a", other / "a")
    shutil.copytree(data / "train" / "10", other / "10")  # not all classes need be there
    count = sum(1 for _ in other.rglob("*.jpg"))
    assert f"of {count} wrong" in run_command(capsys, "test", "--run", conv, "--test", other)
    (other / "x").mkdir()
    Image.new("L", (28, 28)).save(other / "x" / "0.png")
    with pytest.raises(UserError, match="a sub-folder for each class and no other: 2, 10, a"):
        run_command(capsys, "test", "--run", conv, "--test", other)


def test_an_ensemble_votes(pair, tmp_path, capsys):
    data, conv, mlp = pair
    assert run_command(capsys, "ensemble", conv, mlp).count("accuracy") == 4
    with pytest.raises(UserError, match="at least two"):
        run_command(capsys, "ensemble", conv)
    for label in ("2", "10"):
        for part in ("train", "test"):
            shutil.copytree(data / part / label, tmp_path / "two" / part / label)
    arguments = ["train", str(tmp_path / "two"), "--model", "mlp", "--epochs", "1", "--exp", str(tmp_path / "exp")]
    train_command(build_parser().parse_args(arguments))
    with pytest.raises(UserError, match="cannot vote"):
        run_command(capsys, "ensemble", conv, tmp_path / "exp")


def test_the_table_of_results(pair, tmp_path, capsys):
    _, conv, mlp = pair
    lines = run_command(capsys, "compare", conv, mlp).splitlines()
    assert lines[0].startswith("| model | data | runs | test accuracy | test loss | epochs | published accuracy |")
    assert lines[2].startswith("| simple_conv | blobs | 1 |")
    assert lines[2].endswith("|  |  |")  # what was published is about MNIST
    again = tmp_path / "again"
    shutil.copytree(conv, again)
    result = runs.open_run(again).read_json("result.json")
    runs.open_run(again).write_json("result.json", result | {"test_loss": result["test_loss"] + 0.2})
    [row] = tabulate_results([open_finished(conv), open_finished(again)])
    assert row.runs == "2"
    assert row.test_loss == f"{result['test_loss'] + 0.1:.4f} ± 0.1414"
    as_mnist = (conv / "run.json").read_text().replace('"name": "blobs"', '"name": "mnist"')
    (again / "run.json").write_text(as_mnist)
    [row] = tabulate_results([open_finished(again)])
    assert (row.published_accuracy, row.published_loss) == ("0.9895", "0.1163")
    assert markdown_table([row])[2].startswith("| simple_conv | mnist | 1 |")


def test_unfinished_damaged_and_foreign_runs_are_refused(pair, tmp_path):
    _, conv, _ = pair
    torn = tmp_path / "torn"
    shutil.copytree(conv, torn)
    (torn / "result.json").write_text('{"model": ')
    assert "result.json: damaged" in refused(run_module("supervised", "compare", torn))
    (torn / "result.json").unlink()
    with pytest.raises(UserError, match="has not ended"):
        open_finished(torn)
    shutil.copytree(conv, tmp_path / "young")
    shutil.rmtree(tmp_path / "young" / "checkpoints")
    with pytest.raises(UserError, match="has not ended"):
        open_finished(tmp_path / "young")
    text = (conv / "run.json").read_text().replace('"kind": "supervised"', '"kind": "deepcluster"')
    (tmp_path / "young" / "run.json").write_text(text)
    with pytest.raises(UserError, match="not a supervised run but deepcluster"):
        open_finished(tmp_path / "young")


@needs_mnist
def test_folders_of_digits_judge_a_network_of_digits(tmp_path, capsys):
    exp = tmp_path / "exp"
    arguments = [
        "train",
        "--model",
        "mlp",
        "--limit",
        "300",
        "--epochs",
        "1",
        "--exp",
        str(exp),
        "--mnist-dir",
        str(MNIST),
    ]
    train_command(build_parser().parse_args(arguments))
    for value in range(3):
        (tmp_path / "usps" / str(value)).mkdir(parents=True)
        for i in range(4):
            picture = Image.fromarray(np.full((16, 16), 40 * value + i, np.uint8))
            picture.save(tmp_path / "usps" / str(value) / f"{i}.png")
    assert "of 12 wrong" in run_command(capsys, "test", "--run", exp, "--test", tmp_path / "usps")
