"""report.html: the pictures with their captions, the layers, and all models beside this one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from console.pages import templates_in
from runs import Run
from supervised.evaluate import ResultRow, table_cells
from supervised.recipes import RECIPES
from supervised.report.diagram import Layer

TEMPLATES = Path(__file__).parent.parent / "templates"


@dataclass(frozen=True)
class Picture:
    """A file in figures/."""

    file: str
    caption: str


def render_page(
    run: Run, layers: Sequence[Layer], pictures: Sequence[Picture], results: Sequence[ResultRow], accuracy: str
) -> str:
    """The page as HTML; `accuracy` is the one on the test set, in words."""
    environment = templates_in(TEMPLATES)
    head, rows = table_cells(results)
    notes = [RECIPES[row.model].note for row in results if row.model in RECIPES and row.published_loss]
    return environment.get_template("report.html").render(
        name=run.path.resolve().name,
        model=run.meta.model["name"],
        data=run.meta.dataset.name,
        config=run.meta.config,
        seed=run.meta.seed,
        device=run.meta.stamp.device,
        result=run.read_json("result.json"),
        accuracy=accuracy,
        pictures=pictures,
        layers=layers,
        total=sum(layer.parameters for layer in layers),
        head=head,
        rows=rows,
        notes=list(filter(None, notes)),
    )
