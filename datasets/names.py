"""What the name of a photograph says of where it comes from (collection, hoard, series), and which one a table means.

Museums, dealers and photographers name by habit: `BN_3023_R`, `3273 R`, `EYM.01.43_R`, `Ninv21R`, `L325aR`, `M243_33R`,
`MNRB-205 R`, `11_R copie`, `MAN_sn17`. What such names have in common tells who kept or photographed a coin.
"""

import re
from collections import Counter
from dataclasses import dataclass

ENDING = re.compile(r"\.(jpe?g|jfif|png|tiff?|webp|bmp|gif)$", re.I)
COPY = re.compile(r"([\s_.-]+(copie|copy|kopie)([\s_.-]*[0-9]+)?|\s*\([0-9]+\))$", re.I)
SIDE = re.compile(r"(?:(?<=[0-9\s_.-])|(?<=[0-9][a-z]))[RADOV]$")  # revers, avers, droit, obverse, verso
SEPARATORS = re.compile(r"[\s_.-]+")
CODE = re.compile(r"([^\W\d_]+)([0-9]+)([a-z]?)$")  # L325a, Ninv21, M243
LAST_NUMBER = re.compile(r"([0-9]+)[^0-9]*$")


@dataclass(frozen=True)
class Name:
    """A file's name taken apart. '' is none."""

    prefix: str  # its first letters: BN, EYM, Ninv, L, M, MNRB, MAN
    series: str  # what stands before the number of the coin, or a code of letters and a number: EYM.01, M243, L325
    pattern: str  # the name with # for each number: "#_R copie"
    hundred: str  # the name up to its number, of which the last two digits are x: BN_34xx


def take_apart(file: str) -> Name:
    """The parts of a file's name; folders and the ending of an image are left out."""
    stem = ENDING.sub("", file.rpartition("/")[2])
    left = stem
    while found := COPY.search(left):
        left = left[: found.start()]
    left = SIDE.sub("", left).rstrip(" _.-")
    tokens = [token for token in SEPARATORS.split(left) if token]
    first = re.match(r"[^\W\d_]+", tokens[0]) if tokens else None
    number = LAST_NUMBER.search(left)
    return Name(
        prefix=first[0] if first else "",
        series=_series(left, tokens),
        pattern=re.sub("[0-9]+", "#", stem),
        hundred=f"{left[: number.start()]}{number[1][:-2]}xx" if number else "",
    )


def _series(left: str, tokens: list[str]) -> str:
    code = CODE.match(tokens[0]) if tokens else None
    if code and len(tokens) < 3:
        return code[1] + code[2]  # L325a and L325b are of L325, M243_33 is of M243
    return left[: left.rindex(tokens[-1])].rstrip(" _.-") if len(tokens) > 1 else ""


def match_names(ids: list[str], table: list[tuple[str, str]]) -> list[tuple[int | None, str]]:
    """Each (image, value) as (its row among the ids, value): by id, else by file name, with or without its ending.

    None where no id fits, or several do.
    """
    index: dict[str, int] = {}
    for keys in (ids, [i.rsplit("/", 1)[-1] for i in ids], [_stem(i) for i in ids]):
        counts = Counter(keys)
        for position, key in enumerate(keys):
            if counts[key] == 1:
                index.setdefault(key, position)
    return [(index.get(image), value) for image, value in table]


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
