import math
import subprocess
import sys
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic import Field

from ssl_platform.registry import TRUNKS, Registry, load_components
from ssl_platform.schema import Schema


def test_a_component_registered_twice_says_who_was_first():
    registry = Registry("trunk")
    first = type("Twin", (), {"__module__": "first_package"})
    second = type("Twin", (), {"__module__": "second_package"})
    registry.register(first)
    with pytest.raises(ValueError, match="first by first_package, now by second_package"):
        registry.register(second)


def test_options_are_the_constructor_parameters_after_what_the_program_hands_in():
    registry = Registry("head", runtime=("in_dim",))

    class Head:
        def __init__(self, in_dim: int, *, width: int, scale: float):
            self.values = in_dim, width, scale

    registry.register(Head)
    assert registry.build({"name": "Head", "width": 3, "scale": 1}, 7).values == (7, 3, 1.0)
    (line,) = registry.problems(
        {"name": "Head", "width": 3, "scale": 1, "zz": None}, where="heads.a"
    )
    assert line.startswith("heads.a.zz=None: Head has no such option; choose from scale, width")
    problems = registry.problems({"name": "Head", "wdth": 3, "scale": "x"}, where="heads.a")
    assert len(problems) == 3
    assert (
        "heads.a.wdth=3: Head has no such option; did you mean 'width'? "
        "(~heads.a.wdth leaves it out)"
    ) in problems


def test_modules_of_a_package_register_themselves_but_private_ones(tmp_path, monkeypatch):
    """Those may be compiled, and not for this machine."""
    (tmp_path / "some_plugins").mkdir()
    for name in ("__init__", "mine"):
        (tmp_path / "some_plugins" / f"{name}.py").touch()
    (tmp_path / "some_plugins" / "_kernel.py").write_text("raise ImportError('file too short')")
    monkeypatch.syspath_prepend(tmp_path)
    load_components(["some_plugins"])
    assert "some_plugins.mine" in sys.modules


def test_every_shipped_component_registers_itself():
    load_components()
    assert {"ResNet", "TimmTrunk"} <= set(TRUNKS.names())


HEAVY = ("sklearn", "scipy", "pyarrow", "torchvision", "tensorboard", "torch._dynamo")
LOAD = f"""
import sys
from ssl_platform.registry import load_components
load_components()
sys.exit(", ".join(name for name in {HEAVY} if name in sys.modules) or 0)
"""


def test_components_load_without_what_only_some_of_them_need():
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def registered(constructor, runtime=("in_dim",)):
    registry = Registry("head", runtime=runtime)
    registry.register(type("Mine", (), {"__init__": constructor}))
    return registry


def test_arguments_that_a_constructor_takes_by_stars_are_no_options():
    def constructor(self, *args, width: int, **others):
        self.all = args, width, others

    registry = registered(constructor)
    node = {"name": "Mine", "width": 3, "depth": "x"}
    assert registry.problems(node, where="heads.a") == []
    assert registry.build(node, 7).all == ((7,), 3, {"depth": "x"})
    assert registry.problems({"name": "Mine", "width": "x"}, where="heads.a") == [
        "heads.a.width=x: should be a valid integer, unable to parse string as an integer"
    ]


def test_options_without_annotation_docstring_or_default_take_any_value():
    registry = registered(lambda self, in_dim, a, b=2: setattr(self, "all", (in_dim, a, b)))
    assert registry.build({"name": "Mine", "a": [1]}, 7).all == (7, [1], 2)


@dataclass
class Settings:
    parts: list[Annotated[int, Field(ge=1)]]
    share: Annotated[float, Interval(gt=0, le=1)] | None


RANGES = {
    "rate": (Annotated[float, Gt(0), "e.g. 0.05"], -1, "rate=-1: above 0, e.g. 0.05"),
    "decay": (Annotated[float, Interval(ge=0, lt=1)], math.nan, "decay=nan: from 0 to below 1"),
    "seed": (Annotated[int, Ge(0)], -1, "seed=-1: 0 or more"),
    "width": (Annotated[int, Ge(8)], 7, "width=7: at least 8"),
    "size": (Annotated[int, Interval(gt=8, lt=10)], 8, "size=8: above 8, below 10"),
    "quality": (Annotated[int, Interval(ge=1, le=95)], 96, "quality=96: from 1 to 95"),
    "least": (Annotated[int, Le(5)], 6, "least=6: at most 5"),
    "below": (Annotated[float, Lt(5)], 6.5, "below=6.5: below 5"),
    "threads": (Annotated[int, Ge(1), "or null"] | None, 0, "threads=0: at least 1, or null"),
    "betas": (tuple[Annotated[float, Lt(1)], ...], [0.9, 2], "betas.1=2: below 1"),
    "parts": (dict[str, Settings], {"a": {"parts": [0], "share": 1}}, "parts.a.parts.0=0: at leas"),
    "share": (Settings, {"parts": [], "share": 2}, "share.share=2: above 0, up to 1"),
    "pair": (tuple[Annotated[int, Ge(1)], Annotated[int, Gt(0)]], [0, 1], "pair.0=0: should be g"),
    "name": (Annotated[str, "of the file"], 3, "name=3: should be a valid string"),
}


@pytest.mark.parametrize("option", RANGES)
def test_a_value_outside_its_range_is_told_what_the_range_is(option):
    annotation, value, told = RANGES[option]
    schema = Schema("Mine", [Parameter(option, Parameter.KEYWORD_ONLY, annotation=annotation)])
    (line,) = schema.problems({option: value}, where="a")
    assert line.startswith(f"a.{told}")


def test_a_missing_value_is_asked_for_by_its_type_without_the_range():
    annotation = Annotated[float, Gt(0), "e.g. 0.05"]
    schema = Schema("Mine", [Parameter("rate", Parameter.KEYWORD_ONLY, annotation=annotation)])
    assert schema.problems({}, where="a") == ["a.rate: Mine needs a value (float); set a.rate=..."]


def test_annotations_that_are_text_are_read():
    def constructor(self, in_dim: "int", *, width: "int", other: "NotImported" = None):  # noqa: F821
        self.all = in_dim, width, other

    assert registered(constructor).build({"name": "Mine", "width": 3}, 7).all == (7, 3, None)

    def readable(self, in_dim: "int", *, width: "int"):
        self.width = width

    (line,) = registered(readable).problems({"name": "Mine", "width": "x"}, where="heads.a")
    assert line.startswith("heads.a.width=x: should be a valid integer")


def by_position_only(self, in_dim, width, /):
    pass


def nothing(self, *, width: int):
    pass


@pytest.mark.parametrize(
    ("constructor", "told"),
    [
        (by_position_only, "heads.a: the constructor of Mine takes width by position only"),
        (nothing, "heads.a: the constructor of Mine has to take in_dim by position, then its opt"),
    ],
)
def test_a_constructor_that_yaml_cannot_call_is_one_line(constructor, told):
    (line,) = registered(constructor).problems({"name": "Mine", "width": 3}, where="heads.a")
    assert line.startswith(told)


def test_a_plugin_that_registers_one_name_twice_is_told(tmp_path, monkeypatch):
    twice = "from ssl_platform.registry import METRICS\nclass Two:\n    pass\n"
    twice += "METRICS.register(Two)\nMETRICS.register(Two)\n"
    (tmp_path / "twice_plugin.py").write_text(twice)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=r"^metric 'Two' is registered twice: first by twice_plugin"
    ):
        load_components(["twice_plugin"])
