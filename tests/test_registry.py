import pytest

from ssl_platform.registry import TRUNKS, Registry, load_components


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
    problems = registry.problems({"name": "Head", "wdth": 3, "scale": "x"}, where="heads.a")
    assert len(problems) == 3
    assert "heads.a.wdth=3: Head has no such option; did you mean 'width'?" in problems


def test_every_shipped_component_registers_itself():
    load_components()
    assert {"ResNet", "TimmTrunk"} <= set(TRUNKS.names())
