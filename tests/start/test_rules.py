"""The table of rules: what holds for whatever images and machine there are."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_platform.errors import ConfigError
from ssl_platform.start import plan as planning
from ssl_platform.start.facts import Case, Facts, Machine, Measured
from ssl_platform.start.plan import checked
from ssl_platform.start.rules import RULES, choose, steps
from ssl_platform.start.sizes import candidates

GIB = 2**30


def facts(number: int = 1000, *, side: int = 32, classes: int = 10, channels: int = 3) -> Facts:
    return Facts(
        path="/my/images",
        is_list=False,
        number=number,
        summary=f"{number} images",
        class_sizes=(number // classes,) * classes if classes else (),
        tried=10,
        unreadable=(),
        short_sides=(side,) * 10,
        flat=0,
        is_grey=channels == 1,
        channels=channels,
        stored=(),
        transparent=0,
        compared=number,
        copies=0,
        first_copy=(),
        read_seconds=0.001,
    )


def machine(device: str = "cpu", cores: int = 2, gib: float = 16) -> Machine:
    return Machine(device, device, cores, int(gib * GIB), int(gib * GIB))


IMAGES = st.builds(
    facts,
    st.integers(32, 3_000_000),
    side=st.integers(8, 2000),
    classes=st.sampled_from([0, 1, 2, 10, 1000]),
    channels=st.sampled_from([1, 3, 7]),
)
MACHINES = st.builds(
    machine, st.sampled_from(["cpu", "cuda"]), st.integers(1, 64), st.floats(2, 80)
)
MEASURED = st.builds(
    Measured, st.floats(1e-5, 2), st.floats(1e-5, 1), st.integers(1000, 10**8), st.integers(1, 64)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(IMAGES, MACHINES, MEASURED, st.floats(0.01, 100))
def test_the_values_fit_each_other_whatever_the_images(images, here, measured, hours):
    for size in candidates(images, here):
        case = Case(images, here, size, hours, measured)
        values = {choice.key: choice.value for choice in choose(case)}
        batch, queue = values["data.batch_size"], values["loss.queue_length"]
        (number,) = values["heads.prototypes.num_prototypes"]
        assert 2 <= batch <= images.number and queue % batch == 0
        assert batch + queue <= images.number
        assert 2 <= number <= batch + queue
        assert 0 <= values["schedule.warmup_epochs"] < values["num_epochs"]
        assert 0 <= values["loss.freeze_prototypes_steps"] < steps(case)
        small, large = values["data.transform.crops.small.size"], size.crop
        assert 8 <= small <= large <= max(images.side, 16)
        assert values["data.num_workers"] < here.cores
        grey = values["data.transform.ops.grayscale.probability"]
        assert (grey > 0) == (images.channels == 3)
        activations = batch * measured.image_bytes
        assert activations <= here.device_memory / 2 or batch <= 8


@pytest.mark.parametrize(
    ("number", "side", "classes", "channels"),
    [(32, 24, 0, 3), (300, 40, 10, 1), (60_000, 32, 2, 3), (500, 300, 1, 5)],
)
def test_the_check_accepts_what_the_rules_give(number, side, classes, channels):
    images, here = facts(number, side=side, classes=classes, channels=channels), machine()
    kept = 3 if channels == 5 else channels  # which these images have
    given = {"data": "shapes", "data.train.num_samples": number, "data.train.size": side}
    case = Case(images, here, candidates(images, here)[-1], 1.0, Measured(0.01, 0.001, 10**6, 1))
    case.values |= given | {"data.channels": kept, "data.val": None}
    cfg = checked([choice for choice in choose(case) if choice.key != "data.train.path"])
    assert cfg.data.train.num_samples == number
    assert cfg.trunk.in_channels == kept


@pytest.mark.parametrize(("epochs", "start"), [(1, 1), (2, 1), (3, 1), (6, 3)])
def test_the_queue_is_used_from_the_middle_on_and_never_in_one_epoch(epochs, start):
    images = facts(60_000)
    case = Case(images, machine(), candidates(images, machine())[0], 1.0)
    case.values["num_epochs"] = epochs
    chosen = {choice.key: choice for choice in choose(case)}
    assert chosen["loss.queue_start_epoch"].value == start
    assert ("never" in chosen["loss.queue_start_epoch"].why) == (epochs == 1)


@pytest.mark.parametrize(("number", "epsilon"), [(60_000, 0.03), (99_999, 0.03), (100_000, 0.05)])
def test_codes_are_sharp_up_to_many_images(number, epsilon):
    images = facts(number)
    case = Case(images, machine(), candidates(images, machine())[0], 1.0)
    assert {choice.key: choice.value for choice in choose(case)}["loss.epsilon"] == epsilon


def test_every_rule_has_a_reason_and_a_source():
    case = Case(facts(), machine(), candidates(facts(), machine())[0], 1.0)
    chosen = choose(case)
    assert len({rule.key for rule in RULES}) == len(RULES)
    assert all(choice.why and choice.source for choice in chosen)


def test_what_the_user_gives_stays_and_others_follow_it():
    given = {"data.batch_size": 16, "data.transform.ops.jitter": None, "optimizer.eps": 1e-6}
    case = Case(facts(), machine(), candidates(facts(), machine())[0], 1.0, values=dict(given))
    values = {choice.key: choice.value for choice in choose(case)}
    assert given.items() <= values.items()
    assert values["loss.queue_length"] % 16 == 0
    assert "data.transform.ops.jitter.hue" not in values


def test_little_time_takes_a_smaller_trunk_and_too_little_is_refused(monkeypatch):
    tried = []

    def measure(trunk):
        tried.append(trunk)
        return Measured(0.5 if trunk == "resnet18" else 0.01, 0.001, 10**6, 1)

    monkeypatch.setattr(planning, "checked", lambda choices: choices[0].value)
    images = facts(5000, side=200)
    plan = planning.make_plan(images, machine(), 1.0, {}, measure)
    assert tried == ["resnet18", "resnet10_tiny"] and plan.case.size.trunk == "resnet10_tiny"
    assert plan.hours == pytest.approx(1.0, rel=0.1)
    with pytest.raises(ConfigError, match="one pass over 5,000 images takes about"):
        planning.make_plan(images, machine(), 0.001, {}, lambda _: Measured(0.5, 0.01, 10**6, 1))
