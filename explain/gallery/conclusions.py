"""What the overview concludes of an epoch, in words: the verdict beside its baselines, and the facts of the run."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from datasets.view import COLOURLESS, PHOTOGRAPH
from deepcluster.agreement import agreement
from deepcluster.baselines import BASELINES, beats_baselines, verdict
from explain.record import Explanation
from explain.subject import Subject
from machine.files import write_atomic

ADVICE = (
    "Do not read meaning into them. Look first at what the photographs share (ground, light, size), then try more "
    "epochs, a larger --size, another --k, or photographs cut alike."
)
NO_LABELS = (
    "No labels are known for these images, so no figure says whether the clusters mean anything: judge ten of them by "
    "eye, the doubtful images too."
)
TERMS = {  # tooltips of the words that pages use
    "AMI": "Adjusted mutual information of clusters and labels: 0 is chance, 1 the same division.",
    "overlap": "With the most similar cluster of the epoch before, intersection over union (Jaccard): 1 is the same.",
    "purity": "Share of the most frequent label in a cluster. Small clusters are purer by themselves.",
    "doubtful": "Images for which another cluster's logit is higher than their own cluster's: the network disagrees.",
    "empty": "Maps that are zero everywhere: nothing in the last convolution raises the cluster's score.",
    "probability": "Softmax of the logits: how sure the network is, not how often it is right.",
    "nearest": "Clusters whose mean features lie nearest to this one's, by their angle.",
    "agrees": "Images whose highest logit is that of their own cluster.",
}
FIGURES = ("curves.png", "sizes.png", "flow.png")  # of the run, copied beside the pages


def terms_for(group: str) -> dict[str, str]:
    """TERMS of a run whose groups are called otherwise than clusters: digits."""
    said = {"cluster": group, "Cluster": group.capitalize()}
    return {word: re.sub("[Cc]luster", lambda found: said[found[0]], text) for word, text in TERMS.items()}


@dataclass(frozen=True)
class Conclusion:
    """What the overview begins with."""

    verdict: str
    good: bool | None  # None: cannot be told
    advice: str
    bars: list[tuple[str, float]]  # what was clustered, its AMI; the run first


def conclude(explanation: Explanation, wrong: int) -> Conclusion:
    """The verdict that also ends the training, of the explained clusters; `wrong`: predictions unlike their label."""
    subject, run = explanation.subject, explanation.subject.run
    baselines = run.read_json("baselines.json") or {}
    if run.labels is None:
        return Conclusion(NO_LABELS, None, "", [])
    if subject.class_names is not None:
        count = int((subject.clusters.assignment >= 0).sum())
        said = f"{count - wrong} of {count} images are predicted as their label says; {wrong} are not."
        return Conclusion(said, None, "", [])
    ami, edited = _ami(explanation), subject.clusters.digest is not None
    if ami is None:
        return Conclusion(NO_LABELS, None, "", [])
    good = beats_baselines(ami, baselines) if baselines else None
    bars = [("your edited clusters" if edited else "this run", ami)]
    bars += [(BASELINES[name].title, values["ami"]) for name, values in baselines.items() if name in BASELINES]
    return Conclusion(verdict(ami, baselines), good, ADVICE if good is False else "", bars)


def _ami(explanation: Explanation) -> float | None:
    """Of the epoch, as log.csv has it; of clusters that were edited by hand, measured."""
    subject, run = explanation.subject, explanation.subject.run
    assert run.labels is not None
    if subject.clusters.digest is None:
        row = next((line for line in run.log() if line["epoch"] == str(subject.epoch)), {})
        return float(row["ami"]) if row.get("ami") else None
    inside = subject.clusters.assignment >= 0
    labels = [label if inside[i] else "" for i, label in enumerate(run.labels)]
    return agreement(labels, subject.clusters.assignment)["ami"] if any(labels) else None


def facts_of_run(explanation: Explanation) -> list[tuple[str, str]]:
    """What was trained on what, with what: name and value."""
    subject, meta = explanation.subject, explanation.subject.run.meta
    config = meta.config
    facts = [("data", f"{meta.dataset.name}, {meta.dataset.images} images")]
    known = ("preset", "recipe", "arch", "model", "k", "epochs")
    facts += [(name, str(config[name])) for name in known if isinstance(config.get(name), str | int)]
    facts += [
        ("view", subject.view),
        ("clustered", _clustered(subject)),
        ("size", f"{meta.view.size} px"),
        ("seed", str(subject.seed)),
        ("device", meta.stamp.device),
    ]
    weights = subject.run.path / "checkpoints" / f"epoch_{subject.epoch:04d}.pt"
    facts.append(("finished", f"{datetime.fromtimestamp(weights.stat().st_mtime, UTC):%Y-%m-%d}"))
    if meta.dataset.limit is not None:
        facts.insert(1, ("limit", str(meta.dataset.limit)))
    return [(name, value) for name, value in facts if value]


def _clustered(subject: Subject) -> str:
    """What was, in words, of a run that sees coins: the design, and the facts beside it; '' of others."""
    config = subject.run.meta.config
    if subject.view == PHOTOGRAPH or not isinstance(config.get("facts"), str):
        return ""
    beside = " and ".join(filter(None, config["facts"].split(",")))
    weight = config.get("facts_weight", 1.0)  # a setting that runs had not at first
    design = "design alone" if subject.view in COLOURLESS else "the coin, colour and all"
    return f"{design.removesuffix(' alone')}, and beside it {beside} (weight {weight})" if beside else design


def copy_figures(explanation: Explanation) -> list[str]:
    """The run's figures, put beside the epoch's pages; their names."""
    there = [name for name in FIGURES if (explanation.subject.run.path / "figures" / name).is_file()]
    for name in there:
        picture = (explanation.subject.run.path / "figures" / name).read_bytes()
        write_atomic(explanation.folder / name, picture, durable=False)
    return there


def count_empty(explanation: Explanation) -> tuple[int, int]:
    """Empty maps of the summary's method, and how many were drawn."""
    record = explanation.record
    none = np.zeros(0, bool)
    done, empty = record.done.get(explanation.heat_key, none), record.empty.get(explanation.heat_key, none)
    return int((done & empty).sum()), int(done.sum())


def to_script(**constants: object) -> bytes:
    """A classic script that defines them; pages from disk load no JSON."""
    lines = [f"const {name} = {json.dumps(value, ensure_ascii=True)};" for name, value in constants.items()]
    return ("\n".join(['"use strict";', *lines]) + "\n").replace("</", "<\\/").encode("ascii")
