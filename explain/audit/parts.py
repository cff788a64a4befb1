"""The parts of the audit, in the order of its page: a module of this package each."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from explain.audit.findings import DECIDES, TAUGHT_OTHERS


@dataclass(frozen=True)
class Part:
    """Of the audit: a module of this package."""

    name: str
    title: str
    about: str  # how to read its figures
    drawn: tuple[str, ...] = ()  # measures that are drawn beside their controls, if they were measured
    leaves: tuple[str, str] | None = None  # a file that its module's `write_beside` writes, and what that is
    compares: bool = False  # methods with controls: how many come out better by luck is told, and corrected
    in_pieces: str = ""  # what is done to each of its module's `pieces` by `measure_piece`, before it may `join` them

    @property
    def module(self) -> Any:
        return import_module(f"explain.audit.{self.name}")


PARTS = (
    Part(
        "confounders",
        "What else the clusters could be",
        "Adjusted mutual information (AMI) of the clusters with what is known of a photograph besides the design: "
        "0 is chance, 1 the same division; p is how often chance alone reaches the value. Hue and radius may be "
        "the coin's own metal and size; a folder may be its type. Look here first: clusters of grounds or of file "
        "names have heat maps, too.",
        ("AMI with the clusters",),
    ),
    Part(
        "localisation",
        "Where the heat is",
        "Maps are drawn onto the photograph. Heat on a part over the part's share of the coin: 1 is chance. The "
        "controls know nothing of the network: a blob in the middle, edges of the photograph, random heat; nothing of "
        "what was learnt: the same method before training; or nothing of this coin: the method's map of an image of "
        "another cluster, which tells where heat lies on any coin. A method that does not surpass them points at "
        "nothing of its own.",
        (
            "share of the heat on the coin",
            "heat on the symbols over its share of the coin",
            "heat on the deciding symbol over its share of the coin",
        ),
        compares=True,
    ),
    Part(
        "faithfulness",
        "Does the network need what the maps show?",
        "Pixels are taken away (deletion: lower is better) or brought back (insertion: higher is better) in the "
        "order of the heat; the area is under the curve of the cluster's probability. Pairs of the same image "
        "decide whether a method surpasses every control.",
        compares=True,
        in_pieces="taking pixels away",
    ),
    Part(
        "randomisation",
        "Do the maps depend on what was learnt?",
        "Layer by layer from the last down the network gets the weights back that its training started from; a "
        "map that stays as it was shows the photograph and not what was learnt (Adebayo et al. 2018). Rank "
        "correlation with the maps of the trained network: 1 is the same, 0 unrelated. Maps of two images of "
        "different clusters tell how alike maps are anyway.",
    ),
    Part(
        "shuffling",
        "Would a network that learnt nonsense show the same?",
        "A network of the same kind learns by heart clusters that were dealt out anew among a hundred images, so that "
        "there is nothing in the pictures to learn; another one, its twin in everything else, learns the true ones. "
        "Maps of the network that is audited, beside those of the two: where the first are as alike as the second, a "
        "map shows the photograph and not the reason (Adebayo et al. 2018).",
        (TAUGHT_OTHERS.format(DECIDES),),
    ),
    Part(
        "stability",
        "Do the maps stay when the photograph hardly changes?",
        "The same coin turned by five degrees, lit otherwise, blurred, cropped, at half the resolution: how far "
        "the map moves, beside how far the photograph does. And how many maps are empty, how many explain a cluster "
        "that the network itself would not choose, and what a map costs.",
    ),
    Part(
        "retraining",
        "Would another training say the same?",
        "Runs on the same images with other seeds (--against): how far their clusters agree (AMI), and, each run "
        "explaining its own clusters, their maps of the same image. A reason that changes with the seed of the "
        "training is one of many that would do.",
        ("maps of another training (rank correlation)",),
        compares=True,
    ),
    Part(
        "claims",
        "Seven claims about what holds coins together",
        "Each counted over all clusters, with a bootstrap interval, beside heat that knows nothing. They are "
        "those of a study of Celtic coins, which drew them from chosen coins of chosen clusters.",
        leaves=("exclude.csv", "images of clusters of bad pictures: leave them out by deepcluster train --exclude"),
    ),
    Part(
        "counterfactual",
        "What moves a coin to another cluster",
        "The same painted coin with one thing changed, all else equal to the pixel: the share of coins that the "
        "network then puts elsewhere. The strongest evidence there is, and only for painted coins.",
        ("share of the coins whose cluster changes",),
        ("pairs.png", "Ten pairs: the coin, and beside it the same with one thing otherwise"),
    ),
)
