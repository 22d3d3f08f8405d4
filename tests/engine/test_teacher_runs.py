"""Whole runs with a teacher: the student's bits, resuming, several processes, evaluation."""

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import (
    assert_equal,
    folder_of,
    last_saved,
    lines,
    losses,
    refused,
    run_tool,
    saved,
    stop_at,
    stopped_at,
    train,
)
from torch import nn

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.engine.loop import train_step
from ssl_platform.evaluation.trainings_table import trainings_table
from ssl_platform.models.network import Network
from ssl_platform.models.teacher import Teacher
from ssl_platform.registry import TEACHERS

TESTS = str(Path(__file__).parents[1])
EMA = ["teacher=ema", "teacher.momentum=0.9"]
SEEING = [*EMA, "teacher.crops=[0,1]"]


def of_teacher(model: dict) -> dict:
    return {name: value for name, value in model.items() if name.startswith("teacher.")}


def test_an_average_of_weights_changes_no_bit_of_the_training(tiny, tmp_path):
    for name, options in (("plain", []), ("ema", [*EMA, "evaluate=teacher"])):
        results = train(tiny, tmp_path / name, *options)
    assert losses(tmp_path / "ema") == losses(tmp_path / "plain")
    plain, ema = (saved(tmp_path / name, 3) for name in ("plain", "ema"))
    teacher = of_teacher(ema["model"])
    assert {name.removeprefix("teacher.") for name in teacher} == plain["model"].keys()
    assert_equal({k: v for k, v in ema["model"].items() if k not in teacher}, plain["model"])
    assert_equal(ema["optimizer"], plain["optimizer"])
    assert results["knn"]["evaluated"] == "teacher"
    _, _, *rows = trainings_table([tmp_path / "ema", tmp_path / "plain"])
    assert [row.split()[1] == "(teacher)" for row in rows] == [True, False]
    scores = [[line["knn/top1"] for line in lines(tmp_path / n) if "knn/top1" in line]
              for n in ("plain", "ema")]  # fmt: skip
    assert scores[0] != scores[1]
    random = [json.loads((tmp_path / name / "baselines.json").read_text()) for name in
              ("plain", "ema")]  # fmt: skip
    assert random[0] == random[1]


def test_its_momentum_follows_a_schedule_and_the_teacher_hears_it(tiny, tmp_path):
    """At 1 it stands still, at 0 it is a copy."""
    to_zero = "+schedules.teacher.momentum={name: Linear, end: 0.0, epochs: 1}"
    stands = train_to(tiny, tmp_path / "stands", "teacher.momentum=1.0")
    copies = train_to(tiny, tmp_path / "copies", "teacher.momentum=1.0", to_zero)
    values = [line["teacher.momentum"] for line in lines(tmp_path / "copies") if "loss" in line]
    assert values == pytest.approx([1, 0.75, 0.5, 0.25, *[0] * 8])
    for name, value in of_teacher(copies).items():
        assert value.equal(copies[name.removeprefix("teacher.")])
    assert not stands["teacher.trunk.conv1.weight"].equal(stands["trunk.conv1.weight"])


def train_to(tiny: list[str], folder: Path, *options: str) -> dict:
    train([*tiny, "~hooks.knn"], folder, "teacher=ema", *options)
    return saved(folder, 3)["model"]


def test_a_run_stopped_in_an_epoch_ends_as_an_unbroken_one(stoppable, tmp_path):
    options = [*stoppable, *SEEING]
    train(options, tmp_path / "unbroken")
    stopped_at(6, options, tmp_path / "cut")
    train(options, tmp_path / "cut")
    assert_equal(*(saved(tmp_path / name, 3)["model"] for name in ("unbroken", "cut")))


def test_one_process_two_and_one_again_train_as_one(stoppable, tmp_path, monkeypatch):
    """Batch norms of the teacher too are those of all processes."""
    monkeypatch.setenv("PYTHONPATH", TESTS)
    changed = ["resume.allow_changes=[launch.processes]", "plugins=[kill_hook,double_trunks]"]
    double = ["trunk.name=DoubleResNet", "data.train.num_samples=64"]  # two steps an epoch
    options = [*stoppable, *SEEING, *double, *changed]
    run_tool([*options, f"output_dir={tmp_path / 'one'}"])
    mixed = [*options, f"output_dir={tmp_path / 'mixed'}"]
    for step, processes in ((1, 1), (3, 2)):
        with pytest.raises(AssertionError, match=f"stopped by SIGTERM at step {step}"):
            run_tool([*mixed, f"launch.processes={processes}", stop_at(step)])
    run_tool(mixed)
    assert losses(tmp_path / "mixed") == pytest.approx(losses(tmp_path / "one"), rel=1e-9)
    models = [of_teacher(last_saved(tmp_path / name)["model"]) for name in ("mixed", "one")]
    assert models[0].keys() == models[1].keys()
    for name, value in models[0].items():
        torch.testing.assert_close(value, models[1][name], rtol=1e-7, atol=1e-9, msg=name)


def test_prototypes_that_no_gradient_trains_are_copied(tiny, tmp_path):
    """Those of DeepCluster-v2 are centroids, anew in each epoch: an average would be of nothing."""
    own = [o for o in tiny if not o.startswith(("config=", "loss.", "heads.prototypes.num"))]
    method = ["config=pretrain/deepcluster_v2/quickstart", "heads.prototypes.num_prototypes=[12]"]
    train([*method, *own, "~hooks.knn", *EMA], tmp_path)
    model = saved(tmp_path, 3)["model"]
    name = "heads.prototypes.prototypes.0.weight"
    assert torch.equal(model[f"teacher.{name}"], model[name])
    assert not torch.equal(model["teacher.trunk.conv1.weight"], model["trunk.conv1.weight"])


def test_a_teacher_starts_from_the_weights_that_the_trunk_starts_from(tiny, pretrained, tmp_path):
    start = [f"checkpoint={pretrained}", "num_epochs=1", "~hooks.knn", "schedule.warmup_epochs=0"]
    train(tiny, tmp_path, *start, *EMA, "teacher.momentum=1.0")
    before, after = saved(pretrained, 2)["model"], saved(tmp_path, 1)["model"]
    names = [name for name, value in before.items() if name.startswith("trunk.")]
    assert names
    for name in names:
        assert torch.equal(after[f"teacher.{name}"], before[name]) or "tracked" in name, name


def test_a_step_that_float16_skips_moves_no_teacher(tiny, tmp_path):
    cfg = compose([*tiny, *EMA, "~hooks.knn", f"output_dir={tmp_path}"])
    run = Builder(options_of(cfg)).run()
    run.hooks = {}
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    run.fire("on_train_start")
    run.model.train()
    run.optimizer.param_groups[0]["lr"] = 0.1
    moved = []
    for batch, scale in zip(run.train_loader, (2.0**127, 1.0), strict=False):
        run.scaler.update(scale) if run.scaler._scale is not None else None
        before = {k: v.clone() for k, v in of_teacher(run.model.state_dict()).items()}
        run.epoch_step = 2  # where the learning rate is not 0
        train_step(batch, run)
        after = run.model.state_dict()
        moved.append(any(not torch.equal(before[name], after[name]) for name in before))
    assert moved == [False, True]


@TEACHERS.register()
class CopyOfTwoStepsAgo(Teacher):
    """A teacher from outside: a copy that is made at every second step."""

    def __init__(self, student: Network, num_crops: int, *, crops: list[int] | None):
        super().__init__(student, num_crops, crops=crops, batch_norm="train")
        self.register_buffer("count", torch.tensor(0))

    def update(self, student: Network) -> None:
        self.count += 1
        if self.count % 2 == 0:
            self.start(student)


@TEACHERS.register()
class NoTeacher(nn.Module):
    def __init__(self, student: Network, num_crops: int):
        super().__init__()


def test_a_teacher_from_outside(stoppable, tmp_path):
    options = [*stoppable, "+teacher.name=CopyOfTwoStepsAgo", "+teacher.crops=[1]"]
    train(options, tmp_path / "unbroken")
    stopped_at(5, options, tmp_path / "cut")
    train(options, tmp_path / "cut")
    models = [saved(tmp_path / name, 3)["model"] for name in ("unbroken", "cut")]
    assert_equal(*models)
    assert models[0]["teacher.count"] == 12
    assert torch.equal(models[0]["teacher.trunk.conv1.weight"], models[0]["trunk.conv1.weight"])
    told = "teacher: NoTeacher has to be a subclass of ssl_platform.models.teacher.Teacher"
    assert refused([*stoppable, "+teacher.name=NoTeacher"], tmp_path / "none") == [told]


def test_a_run_gets_a_teacher_later_or_loses_it(stoppable, tmp_path):
    """With the change named; the teacher begins as a copy of the student."""
    allowed = "resume.allow_changes=[teacher]"
    plain, later, off = (tmp_path / name for name in ("plain", "later", "off"))
    stopped_at(4, stoppable, plain)
    begun = [*stoppable, f"resume.mode={plain}", "teacher=ema", "save.keep=9"]
    assert "teacher" in refused(begun, tmp_path / "refused")[-1]
    train([*begun, allowed, "teacher.momentum=1.0"], later)
    before, after = saved(plain, 1)["model"], saved(later, 3)["model"]
    for name, value in before.items():
        assert torch.equal(after[f"teacher.{name}"], value) or "num_batches" in name, name
    train([*stoppable, f"resume.mode={folder_of(2, later)}", allowed], off)
    assert saved(off, 3)["model"].keys() == before.keys()
    assert losses(off) == losses(later)[-4:]


MISTAKES = {
    "evaluate=teacher": "evaluate=teacher: there is no teacher; add teacher=ema, or leave it out",
    "evaluate=both": "evaluate=both: should be 'student' or 'teacher'",
    "teacher=emma": "teacher=emma: no such file; did you mean 'ema'?",
    "teacher=ema teacher.crops=[0,4]": "teacher.crops=[0, 4]: different positions of crops, from 0 "
    "to 3 (the data has 4 crops)",
    "teacher=ema teacher.momentum=1.5": "teacher.momentum=1.5: from 0 to 1, e.g. 0.996",
    "teacher=ema teacher.batch_norm=on": "teacher.batch_norm=on: should be 'train' or 'eval'",
    "+teacher.name=EMATeachr": "teacher.name=EMATeachr: no such teacher; did you mean "
    "'EMATeacher'?",
    "weights=student": "weights=student: of which checkpoint? set checkpoint=<a run>, or leave it "
    "out",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_what_cannot_be_is_one_line(options, tiny, tmp_path):
    assert refused(tiny, tmp_path / "run", *options.split()) == [MISTAKES[options]]
    assert not (tmp_path / "run").exists()
