"""A method is told once: registered, it is in help, pictures, table, pages and the enlarged view."""

import shutil
import subprocess
import sys
from importlib import import_module

import pytest
from conftest import ROOT, run_module

from explain.attribution import METHODS, registry
from explain.attribution.registry import Asked, default_methods, described, in_order, parse, parse_all
from machine.files import read_csv

# Registers a method of its own, then does what `python -m explain` does.
WITH_ANOTHER = """
import sys
import torch
from explain.attribution import registry

def stripes(model, images, targets, width=4):
    rows = torch.arange(images.shape[2]) // width % 2
    return rows.view(1, 1, -1, 1).expand(len(images), 1, *images.shape[2:]).float() * images[:, :1].std()

width = registry.Option("width", 4, int, "a number of pixels")
registry.METHODS["stripes"] = registry.Method(
    "stripes", "Stripes of the test", "heat", stripes, needs_layer=False, options=(width,))
from console import command
from explain.__main__ import main
command(main)
"""


def explain_with_another(*arguments):
    command = [sys.executable, "-c", WITH_ANOTHER, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def explained(coins, tmp_path_factory):
    root = tmp_path_factory.mktemp("registry")
    settings = ["--view", "photograph", "--size", "64", "--k", "2", "--epochs", "1", "--batch", "16"]
    trained = run_module("deepcluster", "train", coins, "--exp", root / "exp", *settings)
    assert trained.returncode == 0, trained.stderr
    wanted = "grad_cam,stripes,stripes:width=8"
    result = explain_with_another("--run", root / "exp", "--per-cluster", "3", "--methods", wanted)
    assert result.returncode == 0, result.stderr
    return root / "results"


def test_it_is_in_the_help():
    assert "stripes:width=4" in "".join(explain_with_another("draw", "--help").stdout.split())


def test_it_has_pictures_columns_and_a_place_on_the_pages(explained):
    table = read_csv(explained / "1" / "explanations.csv")
    assert {"original", "grad_cam", "stripes", "stripes~width=8"} <= table[0].keys()
    for row in table:
        for key in ("stripes", "stripes~width=8"):
            assert (explained / "1" / row[key]).stat().st_size > 100
    page = (explained / "1" / table[0]["cluster"] / "index.html").read_text()
    assert page.count("Stripes of the test") >= 2 + 2  # above the coins and in the enlarged view
    assert "Stripes of the test (width 8)" in page
    assert 'data-zoom-method="stripes"' in page
    assert 'data-method="stripes~width=8"' in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="about a real browser, and none is installed")
def test_it_is_seen_enlarged(explained):
    from playwright.sync_api import sync_playwright

    number = read_csv(explained / "1" / "explanations.csv")[0]["cluster"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((explained / "1" / number / "index.html").as_uri())
        page.locator(".coin").first.click()
        page.click('[data-zoom-method="stripes~width=8"]')
        page.wait_for_function("document.getElementById('zoom-image').naturalWidth > 0")
        assert "stripes~width=8.png" in page.locator("#zoom-image").get_attribute("src")
        assert "Stripes of the test (width 8)" in page.locator("#zoom-caption").inner_text()
        browser.close()


def test_every_method_names_a_function_that_is_there():
    import pytorch_grad_cam

    for method in METHODS.values():
        assert method.name in described()
        module, function, of_library = registry.location(method.function)
        assert callable(getattr(import_module(f"explain.attribution.{module}"), function)), method.name
        assert all(hasattr(pytorch_grad_cam, name) for name in of_library), method.name


def test_the_registry_needs_no_torch():
    program = "import sys, explain.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_options_are_read_and_defaults_have_no_name():
    assert parse("Layer-CAM") == Asked("layer_cam")
    assert parse("layer_cam:layer=-1").key == "layer_cam"
    assert parse("layer_cam:layer=-2").options == {"layer": -2}
    assert parse("layer_cam:layer=features.8").title == "Layer-CAM (layer features.8)"
    assert parse(parse("layer_cam:layer=-2").key) == parse("layer_cam:layer=-2")
    assert [one.key for one in parse_all(["grad_cam", "grad_cam"])] == ["grad_cam"]
    mixed = ["gradient", "grad_cam~layer=-2", "original", "grad_cam", "of a later version"]
    assert [one.key for one in in_order(mixed)] == ["original", "grad_cam", "grad_cam~layer=-2", "gradient"]


def test_what_is_drawn_unasked():
    plain = ["original", "guided_backprop", "guided_grad_cam", "grad_cam"]
    assert [one.key for one in default_methods()] == plain
    assert [one.key for one in default_methods(view=True)] == ["original", "hires_cam", *plain[1:], "view"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grad-camm", "did you mean grad_cam"),
        ("gradient:layer=-2", "has no option 'layer'"),
        ("layer_cam:depth=3", "it has: layer"),
        ("layer_cam:layer=3", "counted from the end"),
        ("layer_cam:layer", "counted from the end"),
        ("integrated_gradients:steps=0", "1 to 1000"),
        ("integrated_gradients:steps=2.5", "1 to 1000"),
        ("smooth_grad:samples=1001", "1 to 1000"),
        ("smooth_grad:noise=0", "over 0 to 1"),
        ("smooth_grad:noise=nan", "over 0 to 1"),
    ],
)
def test_wrong_methods_are_named(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)
    assert registry.METHODS  # nothing was changed
