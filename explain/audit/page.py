"""audit/index.html: of each part what it concludes, its pictures and all its figures."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Picture

from explain.audit.findings import Asked, Figure, Finding, Luck, Measured, Sample, say_luck
from explain.audit.parts import Part
from explain.gallery.pages import PAGES
from machine.files import write_atomic
from runs.figures import DPI, new_figure

OURS, KNOWS_NOTHING, DARK = "#b5432a", "#8a8f98", "#15171a"
MOST_ROWS = 24  # of a picture of figures beside their controls
MOST_LETTERS = 60  # of a name in it
BESIDE = "Red: the methods; grey: what each is held against. Line: 95 % interval of the mean."  # captions
ALONE = "Red: the value and its 95 % interval; grey: what it is held against."
LINES = "In colour: the methods; grey and broken: what they are held against."


def write_page(
    sample: Sample,
    asked: Asked,
    measured: dict[Part, Measured],
    concluded: dict[str, list[str]],
    luck: Luck,
    folder: Path,
) -> None:
    """The page and its pictures, PNG each; `concluded`: title of a part -> sentences."""
    subject = sample.subject
    methods = [one.title for one in asked.methods]
    sections = []
    for part, one in measured.items():
        pictures = []
        for number, measure in enumerate(part.drawn):
            rows = [finding for finding in one.findings if finding.measure == measure]
            if rows:
                name = part.name if not number else f"{part.name}_{number + 1}"
                caption = BESIDE if names_any(rows, methods) else ALONE
                pictures.append(save(draw_beside(measure, rows, methods), folder, name, measure, caption))
        for name, figure in one.figures.items():
            caption = LINES if set(methods) & figure.lines.keys() else ""
            pictures.append(save(draw_lines(figure, methods), folder, name, figure.title, caption))
        sections.append(
            {
                "part": part,
                "says": concluded[part.title],
                "pictures": pictures,
                "tables": tables_of(one.findings),
                "missing": one.missing,
                "beside": part.leaves if part.leaves is not None and (folder / part.leaves[0]).exists() else None,
                "seconds": one.seconds,
            }
        )
    html = PAGES.get_template("audit.html").render(
        run_name=subject.run.path.resolve().name,
        epoch=subject.epoch,
        group=subject.group,
        images=len(sample.rows),
        of=len(subject.run.ids),
        data=subject.run.meta.dataset.name,
        seed=asked.seed,
        methods=methods,
        device=subject.run.meta.stamp.device,
        luck=say_luck(luck),
        sections=sections,
    )
    write_atomic(folder / "index.html", html.encode("utf-8", "replace"), durable=False)


def tables_of(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """One table a measure: its rows as text, only the columns in which something stands."""
    tables = []
    for measure in dict.fromkeys(one.measure for one in findings):
        rows = [one for one in findings if one.measure == measure]
        columns = [
            ("", [one.of for one in rows]),
            ("value", [_told(one.value) for one in rows]),
            ("95 % interval", [_between(one) for one in rows]),
            ("n", [str(one.n) if one.n else "" for one in rows]),
            ("held against", [one.control for one in rows]),
            ("its value", [_told(one.control_value) for one in rows]),
            ("p", [_told(one.p) for one in rows]),
            ("verdict", [one.verdict for one in rows]),
        ]
        kept = [(name, cells) for name, cells in columns if any(cells)]
        words = [name in ("", "held against", "verdict") for name, _ in kept]
        tables.append(
            {
                "measure": measure,
                "head": list(zip([name for name, _ in kept], words, strict=True)),
                "rows": [
                    list(zip(cells, words, strict=True)) for cells in zip(*(cells for _, cells in kept), strict=True)
                ],
            }
        )
    return tables


def draw_beside(measure: str, rows: Sequence[Finding], methods: Sequence[str]) -> Picture:
    """Values with their intervals, the largest on top; what is measured in one colour, what it is held against grey."""
    rows = sorted((one for one in rows if np.isfinite(one.value)), key=lambda one: one.value)[-MOST_ROWS:]
    figure = new_figure(8.5, 0.9 + 0.27 * max(2, len(rows)))
    axis = figure.subplots()
    named = names_any(rows, methods)
    for place, one in enumerate(rows):
        colour = OURS if one.of in methods or not named else KNOWS_NOTHING
        axis.plot([one.value], [place], "o", color=colour, markersize=6)
        if np.isfinite(one.low):
            axis.plot([one.low, one.high], [place, place], color=colour, linewidth=2)
        if not named and np.isfinite(one.control_value):
            axis.plot([one.control_value], [place], "|", color=KNOWS_NOTHING, markersize=12, markeredgewidth=2)
    names = [shorten(one.of) for one in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=9, parse_math=False)  # an own column may have a $ in its name
    axis.set_title(measure, loc="left", fontsize=10, parse_math=False)
    axis.grid(axis="x", alpha=0.3)
    if "over its share" in measure:
        axis.axvline(1, color=DARK, linewidth=0.8, linestyle=":")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def names_any(rows: Sequence[Finding], methods: Sequence[str]) -> bool:
    """Whether some of these figures are of methods, and the others what those are held against."""
    return any(one.of in methods for one in rows)


def draw_lines(drawn: Figure, methods: Sequence[str]) -> Picture:
    """Lines of a part: methods in colours, what they are held against in grey and broken."""
    figure = new_figure(8.5, 4.2)
    axis = figure.subplots()
    broken = (":", "--", "-.", (0, (1, 1)), (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
    others = [name for name in drawn.lines if name not in methods] if any(m in drawn.lines for m in methods) else []
    for name, (x, y) in drawn.lines.items():
        if name in others:
            style: dict[str, Any] = {"color": KNOWS_NOTHING, "linestyle": broken[others.index(name) % len(broken)]}
        else:
            style = {"linewidth": 2}
        axis.plot(x, y, label=name, **style)
    axis.set(xlabel=drawn.across, ylabel=drawn.up)
    axis.set_title(drawn.title, loc="left", fontsize=10)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def shorten(name: str) -> str:
    """A name for a picture, of MOST_LETTERS at most."""
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 3]}..."


def save(figure: Picture, folder: Path, name: str, title: str, caption: str) -> dict[str, str]:
    """NAME.png in the folder; what the page shows of it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomic(folder / f"{name}.png", buffer.getvalue(), durable=False)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"name": f"{name}.png", "title": title, "caption": caption, "data": data}


def _told(value: float) -> str:
    if not np.isfinite(value):
        return ""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _between(one: Finding) -> str:
    return f"{_told(one.low)} to {_told(one.high)}" if np.isfinite(one.low) else ""
