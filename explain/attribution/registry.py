"""The one register of attribution methods: command line, pages, tables, rendering and tests iterate METHODS.

Free of torch, so that `--help` answers at once: a method's function is imported when it is first called.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from console import UserError

COLOURS = ("inferno", "viridis", "rainbow")  # look-up tables of heat, by matplotlib's names; the first is the default
MAPS = {"pca": "the first two principal components", "tsne": "t-SNE", "umap": "UMAP"}  # of all images, in words
PEAK = "peak"  # the number that is known of every heat map: its maximum, which its picture is scaled to
PHOTOGRAPH = "original"  # the view itself, a picture beside the methods' maps
VIEW = "view"  # HiRes-CAM where the network sees it: on the view, not drawn back onto the photograph
STEPS, SAMPLES, MOST_POINTS = 24, 25, 1000  # points at which a method takes the gradient of one image
NOISE = 0.15  # of SmoothGrad, as a share of the image's range
SEPARATOR = "~"  # between a method and its options in names of files and columns; ":" on the command line


@dataclass(frozen=True)
class Option:
    """A setting of a method, as in `layer_cam:layer=-2`."""

    name: str
    default: Any
    convert: Callable[[str], Any]  # raises ValueError
    help: str


@dataclass(frozen=True)
class Method:
    """An attribution method: `function(model, images (B, C, H, W), targets, **options) -> maps`, unnormalised.

    kind says what a map is, and so how it is drawn:

    - `heat`: (B, 1, H, W) from 0, coarse; drawn over the photograph.
    - `fine`: (B, C, H, W), of pixels; the largest of the channels above 0 is drawn on its own.
    - `signed`: (B, C, H, W) with meaning on both sides of 0; drawn as colours around grey.
    - `view`: as `heat`, drawn over the view in the middle of a square.
    - `change`: (B, 1, H, W), by how much the score changes when the place is hidden; drawn twice, as brightness of the
      photograph and through a two-sided look-up table.
    """

    name: str
    title: str
    kind: Literal["heat", "fine", "signed", "view", "change"]
    function: Callable[..., Any]
    passes: Literal["one", "many"] = "one"  # through the network; many: batches are kept small
    needs_layer: bool = True  # reads a convolution
    options: tuple[Option, ...] = ()
    default: bool = False  # drawn when nothing is asked for
    of_views: bool = False  # ... where the network sees another view than the photograph
    shared: bool = False  # comes out of the one pass that attribution.cam.shared_pass makes
    numbers: tuple[str, ...] = ()  # what it measures of an image beside its map; columns of explanations.csv
    measure: Callable[..., Any] | None = None  # like `function`, -> (maps, {number's name: (B,)})
    check: Callable[..., None] | None = None  # (side in pixels, **options): refuses options that do not fit, UserError

    @property
    def columns(self) -> tuple[str, ...]:
        """The numbers that are kept of its maps: what it measures, and of heat the maximum."""
        return (*self.numbers, PEAK) if self.kind == "heat" else self.numbers

    def option(self, name: str) -> Option:
        """Its option of that name.

        Raises:
            ValueError: naming those it has.
        """
        for option in self.options:
            if option.name == name:
                return option
        known = ", ".join(option.name for option in self.options) or "none"
        raise ValueError(f"{self.name} has no option {name!r} (it has: {known})")


@dataclass(frozen=True)
class Asked:
    """A method with the options that are not at their defaults, or the photograph itself."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @property
    def key(self) -> str:
        """What files and columns are called: `grad_cam`, `layer_cam~layer=-2`."""
        return SEPARATOR.join([self.name, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def title(self) -> str:
        """For a person."""
        if self.name == PHOTOGRAPH:
            return "Photograph"
        settings = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.method.title} ({settings})" if settings else self.method.title


def parse(text: str) -> Asked:
    """`name`, or `name:option=value:option=value`; `~` may stand for `:`, and `-` for `_` in names.

    Raises:
        ValueError: in words, naming the nearest method or the options there are.
    """
    name, *settings = text.strip().replace(SEPARATOR, ":").split(":")
    name = name.lower().replace("-", "_")
    if name == PHOTOGRAPH and not settings:
        return Asked(PHOTOGRAPH)
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, 1, 0)
        raise ValueError(f"{text.strip()!r} is not a method: did you mean {near[0]}?")
    method, options = METHODS[name], {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        option = method.option(key.strip())
        try:
            if not equals:
                raise ValueError
            converted = option.convert(value.strip())
        except ValueError:
            raise ValueError(f"{setting!r} in {text.strip()!r}: {option.name} is {option.help}") from None
        if converted != option.default:
            options[option.name] = converted
    ordered = {option.name: options[option.name] for option in method.options if option.name in options}
    return Asked(name, ordered)


def parse_all(texts: Iterable[str]) -> tuple[Asked, ...]:
    """Several, each once, for Python: a wrong one is a UserError."""
    try:
        return tuple({asked.key: asked for asked in map(parse, texts)}.values())
    except ValueError as error:
        raise UserError(f"methods: {error}") from None


def described() -> str:
    """All methods and their options for `--help`, the default ones first."""
    names = []
    for method in METHODS.values():
        options = "".join(f":{option.name}={option.default}" for option in method.options)
        names.append(f"{method.name}{options}")
    defaults = ", ".join(method.name for method in METHODS.values() if method.default)
    return f"{', '.join(names)} (default: {defaults})"


def in_order(keys: Iterable[str]) -> list[Asked]:
    """Keys of methods, and the photograph's, in the order of pages and tables: photograph, then as registered."""
    order = [PHOTOGRAPH, *METHODS]
    known = []
    for key in keys:
        try:
            known.append(parse(key))
        except ValueError:  # a method or an option of another version: its pictures are left alone
            continue
    return sorted(known, key=lambda asked: (order.index(asked.name), asked.key))


def layer(text: str) -> int | str:
    """A convolution by its place from the end (-1 is the last), or a module by its name."""
    if text.lstrip("-").isdecimal():
        number = int(text)  # ValueError beyond 4,300 digits, too
        if number >= 0:
            raise ValueError
        return number
    if not text or set(text) & set("=,:~/\\"):
        raise ValueError
    return text


class Sum(tuple[float, ...]):
    """Several numbers, written as `0.1+0.2`."""

    def __str__(self) -> str:
        return "+".join(f"{value:g}" for value in self)


def window(text: str) -> Sum:
    """`.2`, or several as `.1+.2+.3`: fractions of the image's sides."""
    return Sum(share(part) for part in text.split("+"))


def stride(text: str) -> float:
    """A fraction of the window, or whole pixels."""
    value = float(text)
    if not 0 < value < float("inf") or (value >= 1 and value != int(value)):
        raise ValueError
    return value if value < 1 else int(value)


def count(text: str) -> int:
    """Points at which a gradient is taken."""
    value = int(text)
    if not 1 <= value <= MOST_POINTS:
        raise ValueError
    return value


def share(text: str) -> float:
    """Over 0 to 1."""
    value = float(f"{float(text):g}")
    if not 0 < value <= 1:
        raise ValueError
    return value


def one_of(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return convert


class _Lazily:
    """A function of this package, imported when it is first called."""

    def __init__(self, module: str, function: str, *first: Any):
        self.module, self.function, self.first = module, function, first

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(import_module(f"explain.attribution.{self.module}"), self.function)(
            *self.first, *arguments, **options
        )


def location(function: Callable[..., Any]) -> tuple[str, str, tuple[Any, ...]]:
    """Of a method's function its module here, its name there, and what it is always called with first."""
    assert isinstance(function, _Lazily)
    return function.module, function.function, function.first


LAYER = Option("layer", -1, layer, "a convolution counted from the end (-1 is the last), or a module's name")


def _cam(name: str, title: str, of_library: str, passes: Literal["one", "many"] = "one") -> Method:
    return Method(name, title, "heat", _Lazily("library", "library_cam", of_library), passes, options=(LAYER,))


# In the order of pages and tables, which is that of the audit on painted coins: what lies on symbols more than edges do
# and asks what was learnt; what finds this coin's symbols but does not ask; Grad-CAM, which a blob surpasses.
_ALL = (
    Method(
        "hires_cam", "HiRes-CAM", "heat", _Lazily("cam", "hires_cam"), options=(LAYER,), of_views=True, shared=True
    ),
    Method(
        "guided_backprop", "Guided Backprop", "signed", _Lazily("gradients", "guided_backprop"),
        needs_layer=False, default=True, shared=True,
    ),
    Method(
        "guided_grad_cam", "Guided Grad-CAM", "fine", _Lazily("cam", "guided_grad_cam"),
        options=(LAYER,), default=True, shared=True,
    ),
    Method(
        "grad_cam", "Grad-CAM", "heat", _Lazily("cam", "grad_cam"), options=(LAYER,), default=True, shared=True
    ),
    Method(
        VIEW, "HiRes-CAM in the view", "view", _Lazily("cam", "hires_cam"), options=(LAYER,), of_views=True, shared=True
    ),
    Method("gradient", "Gradient", "signed", _Lazily("gradients", "gradient"), needs_layer=False),
    Method("saliency", "Saliency", "fine", _Lazily("gradients", "saliency"), needs_layer=False),
    Method("deconvnet", "DeconvNet", "signed", _Lazily("gradients", "deconvnet"), needs_layer=False),
    Method(
        "integrated_gradients", "Integrated Gradients", "signed", _Lazily("gradients", "integrated_gradients"), "many",
        needs_layer=False,
        options=(Option("steps", STEPS, count, f"points from the baseline to the image, 1 to {MOST_POINTS}"),),
    ),
    Method(
        "smooth_grad", "SmoothGrad", "signed", _Lazily("gradients", "smooth_grad"), "many", needs_layer=False,
        options=(
            Option("samples", SAMPLES, count, f"noisy copies, 1 to {MOST_POINTS}"),
            Option("noise", NOISE, share, "a share of the image's range, over 0 to 1"),
        ),
    ),
    Method("lrp", "LRP", "signed", _Lazily("lrp", "lrp"), needs_layer=False),
    _cam("grad_cam_plus_plus", "Grad-CAM++", "GradCAMPlusPlus"),
    _cam("xgrad_cam", "XGrad-CAM", "XGradCAM"),
    _cam("layer_cam", "Layer-CAM", "LayerCAM"),
    _cam("eigen_cam", "Eigen-CAM", "EigenCAM"),
    _cam("score_cam", "Score-CAM", "ScoreCAM", "many"),
    _cam("ablation_cam", "Ablation-CAM", "AblationCAM", "many"),
    Method(
        "occlusion", "Occlusion", "change", _Lazily("perturbation", "occlusion"), "many", needs_layer=False,
        options=(
            Option("window", Sum([0.2]), window, "fractions of the image's side, over 0 to 1, joined by + (.1+.2+.3)"),
            Option("stride", 0.25, stride, "a fraction of the window below 1, or whole pixels from 1 on"),
            Option("fill", "grey", one_of("grey", "mean", "blur"), "grey, mean or blur"),
            Option("score", "probability", one_of("probability", "logit"), "probability or logit"),
        ),
        numbers=("uncovered", "worst", "best"),
        measure=_Lazily("perturbation", "measured_occlusion"), check=_Lazily("perturbation", "check_occlusion"),
    ),
)  # fmt: skip
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def summary_method(view: bool) -> str:
    """Whose heat stands for an image where there is room for one; `view` as in `default_methods`."""
    return "hires_cam" if view else "grad_cam"


def default_methods(view: bool = False) -> tuple[Asked, ...]:
    """What is drawn when nothing is asked for; `view`: the network sees another view than the photograph."""
    chosen = [method.name for method in METHODS.values() if method.default or (view and method.of_views)]
    return (Asked(PHOTOGRAPH), *map(Asked, chosen))
