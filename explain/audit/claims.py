"""The seven claims that were made of coins and their clusters, each measured over all clusters, beside controls.

The functions take arrays, so that a claim can be made true or false on purpose; `evidence` gathers them of a run. Of
each claim the first finding bears its verdict, the second is the share of clusters for which it holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import hypergeom, rankdata

from explain.audit.confounders import PERMUTATIONS as DEALT
from explain.audit.confounders import associate
from explain.audit.evidence import HORIZONTAL, OTHERS, PLACEBO, VERTICAL, Evidence, bad_pictures, gather
from explain.audit.findings import (
    BOOTSTRAPS,
    ENOUGH,
    INTERVAL,
    UNKNOWN,
    Asked,
    Finding,
    Measured,
    Sample,
    join_words,
    mean_of,
    p_of_sign,
    share_of,
)
from explain.audit.localisation import BACKGROUND, RIM_PART
from machine.files import write_csv
from machine.seeds import derive_seed

PART = "claims"
CLAIMS = {
    1: "claim 1: the cross is a global feature",
    2: "claim 2: the horizontal bar is dominant",
    3: "claim 3: picture quality drives the clusters",
    4: "claim 4: worn coins are badly recognised",
    5: "claim 5: coins with many symbols group together",
    6: "claim 6: the axe is a marked feature, though the bar weighs more",
    7: "claim 7: coins sharing a symbol end up in different clusters",
}
CORNERS = ("top left", "top right", "bottom right", "bottom left")
CHANCE = "chance"
CLAIMED = "flower"  # the symbol of claim 7
A_MAP = "a map"  # whose heat is meant, if nobody says
SUPPORTED, NOT, UNDECIDED = "supported", "not supported", "undecided"

# The smallest effects that count, chosen before anything was measured.
LEAST_DENSITY = 0.1  # heat density beyond a control's; 1 is the mean over the coin
LEAST_RATIO = float(np.log(1.1))  # of two densities, as a logarithm
LEAST_AMI = 0.05
LEAST_PURITY = 0.05
LEAST_CORRELATION = 0.1
LEAST_LOST = 0.05  # probability
LEAST_LIFT = 0.25  # of pairs that share a cluster, beyond chance's 1
ELSEWHERE = 0.25  # share of a symbol's coins
NEARLY_ALL = 0.75  # share of the clusters in which what is global must be seen

MANY = 3  # symbols of a coin, of four fields
FAINT = 0.05  # heat density that is added to both sides of a ratio
PERMUTATIONS = 499
BAD = 0.5  # share of a cluster's pictures
UNLIKELY = 0.05  # chance, over all clusters, of so many


def measure(sample: Sample, asked: Asked) -> Measured:
    """All seven, as far as what is known of the images answers them."""
    evidence = gather(sample, asked)
    missing = list(evidence.missing)
    if evidence.fields is not None and not (evidence.fields == CLAIMED).any():
        missing.append(f"claim 7: no coin bears {article(CLAIMED)}, of which it was made; other symbols are told of")
    return Measured(judge(evidence, derive_seed(asked.seed, 0, "claims")), missing=missing)


def conclude(measured: Measured) -> list[str]:
    """Which claims hold, and the verdict of each in a sentence."""
    said: dict[str, str] = {}
    for one in measured.findings:
        if one.verdict:
            said.setdefault(one.of, one.verdict)
    kinds: dict[str, list[str]] = {"supported": [], "not supported": [], "undecided": []}
    for claim, verdict in said.items():
        kinds[next(kind for kind in kinds if verdict.startswith(kind))].append(claim.split()[1].rstrip(":"))
    told = "; ".join(f"{kind}: {join_words(numbers)}" for kind, numbers in kinds.items() if numbers)
    first = [f"{told[:1].upper()}{told[1:]}."] if told else []
    return [*first, *(f"{claim[:1].upper()}{claim[1:]}: {verdict}." for claim, verdict in said.items())]


def judge(evidence: Evidence, seed: int) -> list[Finding]:
    """The claims that the evidence answers."""
    found: list[Finding] = []
    heat, own, clusters, facts = evidence.heat, evidence.assignment, evidence.clusters, evidence.facts
    method = evidence.method

    def on(part: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return heat[""][part], {source: parts[part] for source, parts in heat.items() if source}

    def ratio(one: str, other: str) -> dict[str, np.ndarray]:
        return {source: log_ratio(parts[one], parts[other]) for source, parts in heat.items()}

    kinds = None
    if evidence.fields is not None:
        dots = facts.get("dot", np.zeros(len(evidence.fields)))
        kinds = np.unique(np.column_stack([evidence.fields, dots]), axis=0, return_inverse=True)[1].ravel()
    if evidence.has_parts("cross"):
        found += claim_cross(*on("cross"), own, seed, facts.get("dot"), clusters, kinds, method)
    if evidence.has_parts(HORIZONTAL, VERTICAL):
        bars = ratio(HORIZONTAL, VERTICAL)
        turned = {how: log_ratio(parts[HORIZONTAL], parts[VERTICAL]) for how, parts in evidence.turned.items()}
        found += claim_bar(bars.pop(""), bars, own, seed, turned, method)
    if evidence.causes:
        places = {
            where: {source: parts[part] for source, parts in heat.items()}
            for where, part in (("off the coin", BACKGROUND), ("on the rim", RIM_PART))
            if evidence.has_parts(part)
        }
        found += claim_quality(evidence.causes, clusters, seed, places, own, evidence.bad, method)
    if evidence.wear is not None:
        of_wear, wear = evidence.wear
        found += claim_wear(wear, evidence.signs, clusters, seed, of_wear, evidence.signs_untrained, evidence.stands_in)
    if evidence.fields is not None and kinds is not None:
        fields = evidence.fields
        found += claim_many((fields != "").sum(1), kinds, clusters, seed)
        for place in range(4):
            part = f"field{place}"
            if evidence.has_parts(part):
                value, controls = on(part)
                title = f"heat density of {method} on the symbol at the {CORNERS[place]}"
                found += compare(CLAIMS[5], title, value, controls, own, LEAST_DENSITY, seed).findings[:1]
        if evidence.has_parts("axe", OTHERS, HORIZONTAL):
            axes, bar = ratio("axe", OTHERS), ratio(HORIZONTAL, "axe")
            found += claim_axe(axes, bar, own, seed, evidence.covered, method)
        names = sorted({*fields.ravel().tolist()} - {""})
        bears = {name: (fields == name).any(1) for name in names}
        on_symbols = {name: heat[""][name] for name in names if name in heat.get("", {})}
        others = evidence.other_clusters
        found += claim_symbol(bears, clusters, others, seed, CLAIMED, on_symbols, evidence.places, method)
    return found


def write_beside(path: Path, sample: Sample, asked: Asked) -> int:
    """Write the images of clusters of bad pictures, for `train --exclude` and for a person to strike out; how many.

    The file has the columns image and reason, and is written even if there is none.
    """
    run, clusters = sample.subject.run, sample.subject.clusters.assignment
    rows = sample.subject.pictures.present
    rows = rows[clusters[rows] >= 0]
    bad = bad_pictures(sample.subject, rows)
    lines: list[dict[str, object]] = []
    if bad is not None:
        for number, count, size in bad_clusters(clusters[rows], bad != ""):
            for row, why in zip(rows.tolist(), bad.tolist(), strict=True):
                if clusters[row] == number:
                    of = f"cluster {number}, of which {count} of {size} pictures are bad"
                    lines.append({"image": run.ids[row], "reason": f"{of}; this one is {why or 'good'}"})
    write_csv(path, lines, ["image", "reason"])
    return len(lines)


# --- verdicts -----------------------------------------------------------------------------------------------------


def decide(value: float, low: float, high: float, n: int, least: float) -> str:
    """What an effect and its interval say: 0 is none, `least` the smallest that counts.

    Supported if it is at least that and its interval lies above 0; not supported if all of its interval is less.
    """
    if n < ENOUGH or not np.isfinite([value, low, high]).all():
        return UNDECIDED
    if low > 0 and value >= least:
        return SUPPORTED
    return NOT if high < least else UNDECIDED


def because(verdict: str, reason: str) -> str:
    """The verdict, and a short reason."""
    return f"{verdict}: {reason}"


def both(verdicts: Sequence[str]) -> str:
    """The verdict of a claim that says several things at once."""
    if NOT in verdicts:
        return NOT
    return UNDECIDED if UNDECIDED in verdicts else SUPPORTED


def row(
    claim: str,
    measure: str,
    found: tuple[float, float, float, int],
    control: str = "",
    control_value: float = UNKNOWN,
    p: float = UNKNOWN,
    verdict: str = "",
) -> Finding:
    """A finding; `found` is its value, interval and number."""
    return Finding(PART, measure, claim, *found, control, control_value, p, verdict)


# --- over all clusters --------------------------------------------------------------------------------------------


def by_cluster(values: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Mean of the finite values (n,) of each cluster of `assignment` (n,): one for each cluster, NaN where none is."""
    return np.array([_mean(values[assignment == number]) for number in np.unique(assignment)])


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else UNKNOWN


@dataclass(frozen=True)
class Compared:
    """A quantity of each image against controls, over all clusters."""

    findings: list[Finding]  # one for each control, second the share of clusters; none has a verdict
    verdict: str  # of the effect beyond every control
    said: str  # why, in words, of the control that decides: the first finding's


def compare(
    claim: str,
    measure: str,
    found: np.ndarray,
    controls: Mapping[str, np.ndarray],
    assignment: np.ndarray,
    least: float,
    seed: int,
    logarithm: bool = False,
) -> Compared:
    """A value of each image (n,) beside chance and the same of controls, means of clusters' means.

    The effect beyond a control is the mean over clusters of the difference, on images of which both are known; it must
    hold beside every control. First stands the control that decides: that of the worst verdict, and of these the one
    whose difference is least. A control that is known of no image is passed over.

    Args:
        claim: of which this is a finding.
        measure: in words.
        found: (n,) heat densities, or logarithms of the ratio of two.
        controls: name -> (n,).
        assignment: (n,) clusters.
        least: effect that counts.
        seed: of chance.
        logarithm: findings and words tell exponentials.
    """
    outer = np.exp if logarithm else np.asarray
    beside = []
    for name, values in ({CHANCE: np.full(len(found), 0.0 if logarithm else 1.0)} | dict(controls)).items():
        known = np.isfinite(found) & np.isfinite(values)
        own, other = (by_cluster(np.where(known, one, np.nan), assignment) for one in (found, values))
        effect = mean_of(own - other, seed)
        if effect[3]:
            beside.append((decide(*effect, least), effect, name, own, other))
    if not beside:
        nothing = (UNKNOWN, UNKNOWN, UNKNOWN, 0)
        share = row(claim, f"share of the clusters in which {measure} is more than {_of(CHANCE)}", nothing)
        return Compared([row(claim, measure, nothing), share], UNDECIDED, "says nothing of any image")
    beside.sort(key=lambda one: ((NOT, UNDECIDED, SUPPORTED).index(one[0]), one[1][0]))
    findings = []
    for _, _, name, own, other in beside:
        value, low, high, n = mean_of(own, seed)
        told = (float(outer(value)), float(outer(low)), float(outer(high)), n)
        findings.append(row(claim, measure, told, name, float(outer(_mean(other))), p_of_sign(own - other, seed)))
    _, effect, name, own, other = beside[0]
    differences = own - other
    held = share_of((differences[np.isfinite(differences)] > 0).astype(float))
    above = f"share of the clusters in which {measure} is more than {_of(name)}"
    findings.insert(1, row(claim, above, held, "half", 0.5))
    middle, low, high = (float(outer(one)) for one in effect[:3])
    by = f"{middle:.2f} times it" if logarithm else f"{middle:+.2f}"
    said = f"{findings[0].value:.2f}, {_of(name)} {findings[0].control_value:.2f} ({by}"
    said += f", {low:.2f} to {high:.2f})" if np.isfinite(low) else ")"
    said += f"; above it in {held[0]:.0%} of {held[3]} clusters"
    return Compared(findings, both([one[0] for one in beside]), said)


def _of(control: str) -> str:
    return control if control == CHANCE else f"that of {control}"


def with_verdict(findings: list[Finding], verdict: str) -> list[Finding]:
    """The first finding bears it."""
    first = findings[0]
    return [replace(first, verdict=verdict), *findings[1:]]


# --- the claims ---------------------------------------------------------------------------------------------------


def claim_cross(
    on_cross: np.ndarray,
    controls: Mapping[str, np.ndarray],
    assignment: np.ndarray,
    seed: int,
    dots: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    kinds: np.ndarray | None = None,
    method: str = A_MAP,
) -> list[Finding]:
    """Claim 1: heat on the cross, over its share of the coin's area, in every cluster; with and without dot together.

    Args:
        on_cross: (n,) heat density on the cross of each image: its share of the heat over its share of the area.
        controls: the same of maps that know nothing; one of them should be a blob in the middle, where the cross is.
        assignment: (n,) clusters.
        seed: of chance.
        dots: (N,) whether each coin of the run has a central dot.
        clusters: (N,) of these.
        kinds: (N,) their types: the dot is a type's, so chance deals it out among these.
        method: whose heat it is, in words.
    """
    name = CLAIMS[1]
    found = compare(name, f"heat density of {method} on the cross", on_cross, controls, assignment, LEAST_DENSITY, seed)
    everywhere = decide_share(found.findings[1], NEARLY_ALL)
    verdict = both([found.verdict, everywhere])
    findings = with_verdict(found.findings, because(verdict, f"{method} {found.said}"))
    if dots is not None and clusters is not None and kinds is not None and 0 < dots.sum() < len(dots):
        found_purity, chance, p = purity_of(dots, clusters, kinds, seed)
        high, n = found_purity[2:]
        together = "undecided whether coins with and without a dot are told apart"
        if p < UNLIKELY:
            together = "coins with and without a dot are told apart"
        elif n >= ENOUGH and high - chance < LEAST_PURITY:
            together = "the dot divides hardly any clusters"
        measure = "purity of the clusters as to the central dot"
        findings.append(row(name, measure, found_purity, "dots dealt out anew among the types", chance, p, together))
    return findings


def decide_share(share: Finding, wanted: float) -> str:
    """Whether something holds for nearly all clusters: what the interval of its share says."""
    if share.n < ENOUGH or not np.isfinite(share.value):
        return UNDECIDED
    if share.low >= wanted:
        return SUPPORTED
    return NOT if share.high < wanted else UNDECIDED


def purity_of(
    labels: np.ndarray, clusters: np.ndarray, kinds: np.ndarray, seed: int
) -> tuple[tuple[float, float, float, int], float, float]:
    """Share of images (N,) that have their cluster's commonest label, which all of one kind (N,) have in common.

    Returns:
        The share, its 95 % interval and the number of clusters; its mean where labels are dealt out anew among the
        kinds; how often chance reaches it.
    """

    def typical(dealt: np.ndarray) -> np.ndarray:
        table = np.zeros((int(cluster.max()) + 1, int(label.max()) + 1))
        np.add.at(table, (cluster, dealt), 1)
        return table.argmax(1)[cluster] == dealt

    cluster, label = (np.unique(values, return_inverse=True)[1] for values in (clusters, labels))
    of_kind, kind = _of_kinds(label, kinds)
    rng = np.random.default_rng(seed)
    value, low, high = bootstrap_by_cluster(typical(label), cluster, seed)
    chance = np.array([typical(rng.permutation(of_kind)[kind]).mean() for _ in range(PERMUTATIONS)])
    p = float((1 + (chance >= value - 1e-12).sum()) / (1 + PERMUTATIONS))
    return (value, low, high, int(cluster.max()) + 1), float(chance.mean()), p


def _of_kinds(values: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (N,) that all images of a kind share -> that of each kind, and the number (N,) of each image's kind."""
    _, first, kind = np.unique(kinds, return_index=True, return_inverse=True)
    return values[first], kind


def log_ratio(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Logarithm of the ratio of two heat densities (n,), of which neither may be 0 alone."""
    return np.log((one + FAINT) / (other + FAINT))


def claim_bar(
    ratio: np.ndarray,
    controls: Mapping[str, np.ndarray],
    assignment: np.ndarray,
    seed: int,
    turned: Mapping[str, np.ndarray],
    method: str = A_MAP,
) -> list[Finding]:
    """Claim 2: the horizontal bar has more heat than the vertical one; and has it when it is no longer horizontal.

    Args:
        ratio: (n,) logarithm of the heat density on the horizontal bar over that on the vertical one.
        controls: the same of maps that know nothing.
        assignment: (n,) clusters.
        seed: of chance.
        turned: in words, how the coin was turned by 90 degrees -> (n,) the same logarithm, of the same two bars. NaN
            where it was not. If it is not the bar but what is horizontal, or the lamp, the ratio goes to its inverse.
        method: whose heat it is, in words.
    """
    name = CLAIMS[2]
    measure = f"heat density of {method} on the horizontal bar over that on the vertical one"
    found = compare(name, measure, ratio, controls, assignment, LEAST_RATIO, seed, logarithm=True)
    verdicts, findings, said = [found.verdict], found.findings, f"{method} {found.said}"
    before = _mean(ratio)
    for how, values in turned.items():
        value, low, high, n = mean_of(by_cluster(values, assignment), seed)
        stays = decide(value, low, high, n, LEAST_RATIO)
        told = {SUPPORTED: "it stays with the bar", NOT: "it does not stay with the bar"}.get(stays, UNDECIDED)
        if stays == NOT and high < 0 < before:
            told = "it goes over to the other bar"
        outer = (float(np.exp(value)), float(np.exp(low)), float(np.exp(high)), n)
        p = p_of_sign(by_cluster(values, assignment), seed)
        findings.append(row(name, f"{measure}, {how}", outer, "not turned", float(np.exp(before)), p, told))
        verdicts.append(stays)
        said += f"; {how} {outer[0]:.2f}"
    return with_verdict(findings, because(both(verdicts), said))


def claim_quality(
    causes: Mapping[str, np.ndarray],
    clusters: np.ndarray,
    seed: int,
    heat: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    assignment: np.ndarray | None = None,
    bad: np.ndarray | None = None,
    method: str = A_MAP,
) -> list[Finding]:
    """Claim 3: clusters follow quality and background; heat lies off the coin and on its rim.

    Args:
        causes: what is of the picture and not of the coin -> (N,) values of it.
        clusters: (N,).
        seed: of chance.
        heat: "off the coin" and "on the rim" -> whose map ("" is the network's) -> (n,) heat density, whose clusters
            are `assignment` (n,).
        assignment: see there.
        bad: (N,) whether a picture is bad.
        method: whose heat it is, in words.
    """
    name, findings, verdicts, said = CLAIMS[3], [], [], []
    for cause, values in causes.items():
        tied = associate(values, clusters, np.zeros(len(values)), derive_seed(seed, 0, cause), DEALT, jackknife=True)
        measure = f"AMI of the clusters with the {cause}"
        if tied is None:
            findings.append(row(name, measure, (UNKNOWN, UNKNOWN, UNKNOWN, len(values)), verdict=UNDECIDED))
            verdicts.append(UNDECIDED)
            said.append(f"{cause} not to be told")
            continue
        verdict = decide(tied.ami, tied.low, tied.high, len(np.unique(clusters)), LEAST_AMI)
        if verdict == SUPPORTED and tied.p >= UNLIKELY:
            verdict = UNDECIDED
        told = (tied.ami, tied.low, tied.high, tied.n)
        findings.append(row(name, measure, told, "dealt out anew", tied.chance, tied.p, verdict))
        verdicts.append(verdict)
        said.append(f"{cause} {tied.ami:.2f}")
    if not findings:
        return []
    findings.sort(key=lambda one: -np.nan_to_num(one.value, nan=-np.inf))
    verdict = SUPPORTED if SUPPORTED in verdicts else UNDECIDED if UNDECIDED in verdicts else NOT
    findings[0] = replace(findings[0], verdict=because(verdict, f"AMI with {', '.join(said)}"))
    findings.insert(1, surprising(causes, clusters, seed))
    for where, maps in (heat or {}).items():
        assert assignment is not None
        others = {control: values for control, values in maps.items() if control}
        measure = f"heat density of {method} {where}"
        beside = compare(name, measure, maps[""], others, assignment, LEAST_DENSITY, seed)
        findings += with_verdict(beside.findings, because(beside.verdict, f"{method} {beside.said}"))
    if bad is not None:
        listed = bad_clusters(clusters, bad)
        of = len(np.unique(clusters))
        which = "clusters " + ", ".join(str(number) for number, _, _ in listed) if listed else "none"
        measure = "share of the clusters that are of bad pictures: candidates for removal"
        found = (len(listed) / of, UNKNOWN, UNKNOWN, of)
        findings.append(row(name, measure, found, "share of bad pictures", float(bad.mean()), verdict=which))
    return findings


def surprising(causes: Mapping[str, np.ndarray], clusters: np.ndarray, seed: int) -> Finding:
    """Share of the clusters that have one value of a cause oftener than chance would let any cluster have it."""
    codes = {name: np.unique(values, return_inverse=True)[1] for name, values in causes.items()}
    rng = np.random.default_rng(seed)

    def share(dealt: Mapping[str, np.ndarray]) -> float:
        return float(np.mean([_surprises(dealt, clusters == number) for number in np.unique(clusters)]))

    chance = [share({name: rng.permutation(values) for name, values in codes.items()}) for _ in range(10)]
    measure = f"share of the clusters that share their {' or '.join(causes)} oftener than chance"
    found = (share(codes), UNKNOWN, UNKNOWN, len(np.unique(clusters)))
    return row(CLAIMS[3], measure, found, "dealt out anew", float(np.mean(chance)))


def _surprises(causes: Mapping[str, np.ndarray], own: np.ndarray) -> bool:
    tests = sum(int(values.max()) + 1 for values in causes.values())
    for values in causes.values():
        at_large, here = np.bincount(values), np.bincount(values[own], minlength=int(values.max()) + 1)
        tails = hypergeom.sf(here - 1, len(values), at_large, int(own.sum()))
        if (tails < UNLIKELY / tests).any():
            return True
    return False


def bad_clusters(clusters: np.ndarray, bad: np.ndarray) -> list[tuple[int, int, int]]:
    """Clusters at least half of whose pictures are bad, and more than chance would let any cluster have.

    Returns:
        (cluster, bad pictures, pictures) of each.
    """
    found, numbers = [], np.unique(clusters)
    for number in numbers.tolist():
        own = clusters == number
        count, size = int(bad[own].sum()), int(own.sum())
        chance = float(hypergeom.sf(count - 1, len(bad), int(bad.sum()), size))
        if count >= BAD * size and chance < UNLIKELY / len(numbers):
            found.append((number, count, size))
    return found


def claim_wear(
    wear: np.ndarray,
    signs: Mapping[str, np.ndarray],
    clusters: np.ndarray,
    seed: int,
    of_wear: str = "wear",
    untrained: Mapping[str, np.ndarray] | None = None,
    stands_in: bool = False,
) -> list[Finding]:
    """Claim 4: the more worn, the worse recognised; and not so already by a network that learnt nothing.

    Args:
        wear: (N,) larger is more worn.
        signs: in words, what is larger where a coin is recognised worse -> (N,), NaN where it is not known. They all
            must agree.
        clusters: (N,).
        seed: of chance.
        of_wear: what `wear` is, in words.
        untrained: some of the signs, of a network that learnt nothing.
        stands_in: `wear` is something else, since wear is not known: then nothing is decided.
    """
    name, findings, verdicts = CLAIMS[4], [], {}
    for sign, values in signs.items():
        control = (untrained or {}).get(sign)
        known = np.isfinite(values) & np.isfinite(wear) & (True if control is None else np.isfinite(control))
        x, y, own = wear[known], values[known], clusters[known]
        n = len(np.unique(own))
        value, draws = correlation(x, y, own, seed)
        found = (value, *interval_of(draws), n)
        measure = f"rank correlation of {sign} with {of_wear}"
        against = [(decide(*found, LEAST_CORRELATION), "dealt out anew", 0.0, p_of_correlation(x, y, seed))]
        said = f"{sign} {value:.2f}" if np.isfinite(value) else f"{sign} (the same for all or not known)"
        if control is not None:
            before, draws_before = correlation(x, control[known], own, seed)
            beyond = draws - draws_before
            decided = decide(value - before, *interval_of(beyond), n, LEAST_CORRELATION)
            p = float((1 + (beyond <= 0).sum()) / (1 + BOOTSTRAPS)) if n >= ENOUGH else UNKNOWN
            against.append((decided, "the untrained network", before, p))
            said += f" (untrained {before:.2f})"
        verdicts[said] = both([decided for decided, *_ in against])
        against.sort(key=lambda one: one[0] != verdicts[said])  # first the one that decides
        for place, (_, other, figure, p) in enumerate(against):
            told = "" if place or stands_in else verdicts[said]
            findings.append(row(name, measure, found, other, figure, p, told))
    if not findings:
        return []
    alike = {*verdicts.values()}
    if stands_in:
        verdict = because(UNDECIDED, f"wear is not known; rank correlations with {of_wear}: {', '.join(verdicts)}")
    else:
        told_by = [
            f"{kind} by {', '.join(sign for sign, one in verdicts.items() if one == kind)}"
            for kind in (SUPPORTED, UNDECIDED, NOT)
            if kind in alike
        ]
        kind = alike.pop() if len(alike) == 1 else UNDECIDED
        verdict = because(kind, f"rank correlations with {of_wear}: {'; '.join(told_by)}")
    findings = with_verdict(findings, verdict)
    first, values = next(iter(signs.items()))
    known, within = np.isfinite(values) & np.isfinite(wear), []
    for number in np.unique(clusters):
        members = known & (clusters == number)
        if members.sum() >= ENOUGH:
            within.append(_spearman(rankdata(wear[members]), rankdata(values[members])))
    held = share_of(np.array([one > 0 for one in within if np.isfinite(one)], float))
    measure = f"share of the clusters (of {ENOUGH} images and more) in which {first} goes with {of_wear}"
    findings.insert(1, row(name, measure, held, "half", 0.5))
    return findings


def correlation(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, seed: int) -> tuple[float, np.ndarray]:
    """Spearman's correlation of (n,) and (n,), and BOOTSTRAPS of it that draw whole clusters (n,).

    Images of one cluster are recognised alike, so they are no n witnesses. The draws of one seed are of the same
    clusters, so those of two pairs can be subtracted.
    """
    if len(x) < 2:
        return UNKNOWN, np.full(BOOTSTRAPS, np.nan)
    a, b = (ranks - ranks.mean() for ranks in (rankdata(x), rankdata(y)))
    own = np.unique(clusters, return_inverse=True)[1]
    sums = np.stack([np.bincount(own, one) for one in (np.ones(len(a)), a, b, a * a, b * b, a * b)])
    draws = np.random.default_rng(seed).integers(0, sums.shape[1], (BOOTSTRAPS, sums.shape[1]))
    n, sa, sb, saa, sbb, sab = sums[:, draws].sum(2)
    room = (saa - sa**2 / n) * (sbb - sb**2 / n)
    drawn = (sab - sa * sb / n) / np.sqrt(np.where(room > 1e-9, room, np.nan))
    return _spearman(a, b), drawn


def interval_of(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % interval that bootstrapped figures (BOOTSTRAPS,) give; NaN if they are not known."""
    if np.isnan(draws).all():
        return UNKNOWN, UNKNOWN
    low, high = np.nanquantile(draws, INTERVAL)
    return float(low), float(high)


def p_of_correlation(x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """How often a Spearman's correlation at least so large comes of values (n,) that are dealt out anew (one-sided)."""
    if len(x) < ENOUGH:
        return UNKNOWN
    a, b = rankdata(x), rankdata(y)
    value, rng = _spearman(a, b), np.random.default_rng(seed)
    chance = np.array([_spearman(a, rng.permutation(b)) for _ in range(PERMUTATIONS)])
    return float((1 + (chance >= value).sum()) / (1 + PERMUTATIONS)) if np.isfinite(value) else UNKNOWN


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Of ranks."""
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / length) if length > 0 else UNKNOWN


def claim_many(symbols: np.ndarray, kinds: np.ndarray, clusters: np.ndarray, seed: int) -> list[Finding]:
    """Claim 5: coins with many symbols lie together whatever the symbols are.

    Of two coins of different types: how much likelier they share a cluster if both have many symbols. Coins of one type
    do not count: that they lie together says nothing of their number of symbols.

    Args:
        symbols: (N,) their number, of each coin.
        kinds: (N,) its type.
        clusters: (N,).
        seed: of chance.
    """
    name = CLAIMS[5]
    cluster, kind = (np.unique(values, return_inverse=True)[1] for values in (clusters, kinds))
    table = np.zeros((int(cluster.max()) + 1, int(kind.max()) + 1))
    np.add.at(table, (cluster, kind), 1)
    number = _of_kinds(symbols, kinds)[0]

    def pairs(counts: np.ndarray) -> np.ndarray:
        """(clusters, types) -> pairs of different types in each cluster."""
        return (counts.sum(1) ** 2 - (counts**2).sum(1)) / 2

    def lift(many: np.ndarray, rows: np.ndarray) -> float:
        both_many, all_pairs = pairs(table[:, many]), pairs(table)
        at_large = [float(pairs(some.sum(0)[None])[0]) for some in (table[:, many], table)]
        together = all_pairs[rows].sum()
        return float(both_many[rows].sum() / together / (at_large[0] / at_large[1])) if together else UNKNOWN

    def commoner(many: np.ndarray) -> np.ndarray:
        """Of each cluster that holds pairs, whether more of them are of many symbols than at large."""
        own, whole = pairs(table), pairs(table.sum(0)[None])[0]
        some, at_large = pairs(table[:, many]), pairs(table[:, many].sum(0)[None])[0]
        return (some / np.maximum(own, 1) > at_large / whole)[own > 0]

    many = number >= MANY
    every = np.arange(len(table))
    rng = np.random.default_rng(seed)
    if pairs(table[:, many].sum(0)[None])[0] == 0:
        return []
    value = lift(many, every)
    draws = [lift(many, rng.integers(0, len(table), len(table))) for _ in range(BOOTSTRAPS)]
    chance = np.array([lift(rng.permutation(many), every) for _ in range(PERMUTATIONS)])
    mixed = pairs(table) > 0
    if not mixed.any():
        low = high = p = UNKNOWN
    else:
        low, high = (float(edge) for edge in np.nanquantile(draws, INTERVAL))
        p = float((1 + (chance >= value).sum()) / (1 + PERMUTATIONS))
    verdict = decide(value - 1, low - 1, high - 1, int(mixed.sum()), LEAST_LIFT)
    if verdict == SUPPORTED and p >= UNLIKELY:  # few types: another choice of them would do as well
        verdict = UNDECIDED
    said = f"{value:.2f} times as likely in one cluster (as many types of other coins: p {p:.2f})"
    if not mixed.any():
        said = "no cluster holds coins of two types"
    held = share_of(commoner(many).astype(float))
    held_by_chance = _mean(np.array([_mean(commoner(rng.permutation(many)).astype(float)) for _ in range(50)]))
    explained, control, p_explained = number_explained(symbols, cluster, kind, seed)
    measure = f"pairs of coins of different types in one cluster: how much likelier if both have {MANY} symbols or more"
    found = (value, low, high, int(mixed.sum()))
    dealt = "numbers dealt out anew among the types"
    return [
        row(name, measure, found, dealt, _mean(chance), p, because(verdict, said)),
        row(
            name,
            "share of the clusters (of two types and more) in which such pairs are commoner than at large",
            held,
            dealt,
            held_by_chance,
        ),
        row(
            name,
            "share of the variance of the number of symbols that the clusters explain",
            (explained, UNKNOWN, UNKNOWN, len(symbols)),
            dealt,
            control,
            p_explained,
        ),
    ]


def number_explained(
    values: np.ndarray, cluster: np.ndarray, kinds: np.ndarray, seed: int
) -> tuple[float, float, float]:
    """Eta squared of (N,) values by (N,) clusters from 0 up; its mean for values dealt out among kinds (N,); p."""

    def eta(dealt: np.ndarray) -> float:
        sums, sizes = np.bincount(cluster, dealt), np.bincount(cluster)
        between = (sums[sizes > 0] ** 2 / sizes[sizes > 0]).sum() - dealt.sum() ** 2 / len(dealt)
        total = ((dealt - dealt.mean()) ** 2).sum()
        return float(between / total) if total else UNKNOWN

    of_kind, kind = _of_kinds(values.astype(float), kinds)
    rng = np.random.default_rng(seed)
    value = eta(of_kind[kind])
    chance = np.array([eta(rng.permutation(of_kind)[kind]) for _ in range(PERMUTATIONS)])
    p = float((1 + (chance >= value - 1e-12).sum()) / (1 + PERMUTATIONS))
    return value, float(chance.mean()), p


def claim_axe(
    over_others: Mapping[str, np.ndarray],
    bar_over: Mapping[str, np.ndarray],
    assignment: np.ndarray,
    seed: int,
    covered: Mapping[str, np.ndarray] | None = None,
    method: str = A_MAP,
) -> list[Finding]:
    """Claim 6: more heat on axes than on other symbols of the same coin, and more on the horizontal bar than on axes.

    Args:
        over_others: whose map ("" is the network's) -> (n,) logarithm of the heat density on the coin's axes over that
            on its other symbols; NaN where it has not both.
        bar_over: the same of the density on the horizontal bar over that on the axes.
        assignment: (n,) clusters.
        seed: of chance.
        covered: what was covered, the axes say -> (2, n) probability lost by that, and by covering its own shape where
            nothing is struck; NaN where that was not done.
        method: whose heat it is, in words.
    """
    name = CLAIMS[6]
    compared = []
    for measure, ratios in (
        (f"heat density of {method} on axes over that on the coin's other symbols", over_others),
        (f"heat density of {method} on the horizontal bar over that on axes", bar_over),
    ):
        others = {control: values for control, values in ratios.items() if control}
        compared.append(compare(name, measure, ratios[""], others, assignment, LEAST_RATIO, seed, logarithm=True))
    axe, bar = compared
    said = f"{method}: axe over others {axe.said}; bar over axe {bar.said}"
    findings = with_verdict(axe.findings, because(both([axe.verdict, bar.verdict]), said))
    findings += with_verdict(bar.findings, because(bar.verdict, f"{method} {bar.said}"))
    for what, (lost, spare) in (covered or {}).items():
        measure, pairs = f"probability lost when covered: {what}", np.isfinite(lost) & np.isfinite(spare)
        if not pairs.any():
            findings.append(row(name, measure, mean_of(lost, seed)))
            continue
        differences = lost[pairs] - spare[pairs]
        told = decide(*mean_of(differences, seed), LEAST_LOST)
        p, control = p_of_sign(differences, seed), float(spare[pairs].mean())
        findings.append(row(name, measure, mean_of(lost[pairs], seed), f"covered: {PLACEBO}", control, p, told))
    return findings


def claim_symbol(
    bears: Mapping[str, np.ndarray],
    clusters: np.ndarray,
    others: Mapping[str, np.ndarray],
    seed: int,
    claimed: str = CLAIMED,
    heat: Mapping[str, np.ndarray] | None = None,
    rows: np.ndarray | None = None,
    method: str = A_MAP,
) -> list[Finding]:
    """Claim 7: coins that share a symbol, the flower before all, lie in clusters that are not its own.

    A cluster is a symbol's own if most of its coins bear it; *elsewhere* is the share of its coins that lie in others.

    Args:
        bears: symbol -> (N,) whether each coin has it.
        clusters: (N,).
        others: name of another clustering, k-means on pixels say -> (N,).
        seed: of chance.
        claimed: the symbol that the claim is about.
        heat: symbol -> (n,) heat density on it, of the images `rows` (n,) of N.
        rows: see there.
        method: whose heat it is, in words.
    """
    name, findings = CLAIMS[7], []
    rng = np.random.default_rng(seed)
    for symbol, has in sorted(bears.items(), key=lambda one: one[0] != claimed):
        if not has.any():
            continue
        away = elsewhere(has, clusters)
        value, low, high = bootstrap_by_cluster(away[has], clusters[has], seed)
        n = len(np.unique(clusters[has]))
        controls = {other: float(elsewhere(has, found)[has].mean()) for other, found in others.items()}
        controls["coins dealt out anew"] = float(
            np.mean([elsewhere(dealt, clusters)[dealt].mean() for dealt in (rng.permutation(has) for _ in range(50))])
        )
        verdict = ""
        if symbol == claimed:
            said = [f"{value:.0%} of its coins lie elsewhere ({low:.0%} to {high:.0%}, {n} clusters)"]
            for other, control in controls.items():
                side = "above" if low > control else "below" if high < control else "about as"
                said.append(f"{side} {other} ({control:.0%})")
            effect = decide(value - ELSEWHERE, low - ELSEWHERE, high - ELSEWHERE, n, 0.0)
            verdict = because(effect, ", ".join(said))
        measure = f"share of the coins with {article(symbol)} that lie in clusters where most have none"
        for place, (other, control) in enumerate(controls.items()):
            findings.append(row(name, measure, (value, low, high, n), other, control, verdict="" if place else verdict))
        if symbol == claimed:
            minority = np.array([away[has & (clusters == one)].any() for one in np.unique(clusters[has])], float)
            measure = f"share of the clusters with {article(symbol)} in which most coins have none"
            by_chance = _share_dealt(has, clusters, rng)
            findings.insert(1, row(name, measure, share_of(minority), "coins dealt out anew", by_chance))
            if heat is not None and rows is not None and symbol in heat:
                at_home, lost = (heat[symbol][has[rows] & where[rows]] for where in (~away, away))
                if np.isfinite(lost).any() and np.isfinite(at_home).any():
                    measure = f"heat density of {method} on the {symbol} of coins that lie elsewhere"
                    control = _mean(at_home)
                    findings.append(row(name, measure, mean_of(lost, seed), "of coins in its own clusters", control))
    return findings


def article(symbol: str) -> str:
    return f"{'an' if symbol[0] in 'aeiou' else 'a'} {symbol}"


def elsewhere(has: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(N,) whether a coin lies in a cluster of whose coins less than half have what `has` (N,) tells."""
    _, own = np.unique(clusters, return_inverse=True)
    return (np.bincount(own, has) / np.bincount(own) < 0.5)[own]


def _share_dealt(has: np.ndarray, clusters: np.ndarray, rng: np.random.Generator) -> float:
    shares = []
    for _ in range(50):
        dealt = rng.permutation(has)
        away = elsewhere(dealt, clusters)
        shares.append(np.mean([away[clusters == number][0] for number in np.unique(clusters[dealt])]))
    return float(np.mean(shares))


def bootstrap_by_cluster(values: np.ndarray, clusters: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Mean of (n,) and its 95 % interval, drawing whole clusters (n,): images of one cluster share their fate."""
    _, own = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(own, values), np.bincount(own)
    draws = np.random.default_rng(seed).integers(0, len(sizes), (BOOTSTRAPS, len(sizes)))
    low, high = np.quantile(sums[draws].sum(1) / sizes[draws].sum(1), INTERVAL)
    return float(values.mean()), float(low), float(high)
