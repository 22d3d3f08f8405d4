"""What is answered to keys, flags and names that are not there: what to type instead."""

import pytest

from ssl_platform.cli import main
from ssl_platform.config.hints import OTHER_NAMES, unknown_key
from ssl_platform.config.source import Source

QUICKSTART = "config=pretrain/swav/quickstart"
ANSWERS = {
    # names of configs
    "pretrain/swav/quickstart": "did you mean config=pretrain/swav/quickstart?",
    "configs/config/pretrain/swav/folder.yaml": "did you mean config=pretrain/swav/folder?",
    "pretrain/swav/quickstrt": "did you mean config=pretrain/swav/quickstart?",
    "resnet18": "did you mean trunk=resnet18?",
    "hello": "write key=value",
    "strat /my/images": "strat: no such command; did you mean 'start'?",
    "Start": "Start: no such command; did you mean 'start'?",
    "config=swav": "one of pretrain/swav/fashion_mnist, ",
    "config=pretrain/sela_v2": "one of pretrain/sela_v2/fashion_mnist, ",
    "config=knn": "one of benchmark/knn/folder, ",
    "config=quickstart": "one of pretrain/deepcluster_v2/quickstart, pretrain/sela_v2/quickstart, ",
    "config=resnet50": "resnet50 is a part: trunk=resnet50, beside config=...",
    "config=pretrain/dino/rn50": (
        "there is no method 'dino', but deepcluster_v2, sela_v2, swav; docs/extending.md adds one"
    ),
    "config=pretrain/swv/folder": "did you mean 'pretrain/swav/folder'?",
    # flags
    "--epochs 10": "--epochs: no such flag; write num_epochs=10",
    "--epochs=10": "--epochs=10: no such flag; write num_epochs=10",
    "--config X": "--config: no such flag; write config=X",
    "--lr 0.1 " + QUICKSTART: "--lr: no such flag; write optimizer.lr=0.1",
    "-bs 64 " + QUICKSTART: "-bs: no such flag; write data.batch_size=64",
    "--foo": "--foo: no such flag; see --help",
    "--foo --seed 3": "--foo: no such flag; see --help",
    # keys
    f"{QUICKSTART} lr=0.1": "lr=0.1: there is no lr; write optimizer.lr=0.1",
    f"{QUICKSTART} batch_size=8": "write data.batch_size=8",
    f"{QUICKSTART} optimizer.batch_size=8": "write data.batch_size=8",
    f"{QUICKSTART} backbone=resnet18": "write trunk=resnet18",
    f"{QUICKSTART} model=vit": "write trunk=resnet101|resnet10_tiny|",
    f"{QUICKSTART} gpus=2": "write launch.processes=2",
    f"{QUICKSTART} num_prototypes=20": "write heads.prototypes.num_prototypes=[20]",
    f"{QUICKSTART} num_prototypes=[20]": "write heads.prototypes.num_prototypes=[20]",
    f"{QUICKSTART} scale=[0.1,1]": (
        "write data.transform.crops.large.scale=[0.1,1] or data.transform.crops.small.scale=[0.1,1]"
    ),
    f"{QUICKSTART} xyz=3": "xyz=3: there is no xyz; choose from ",
    f"{QUICKSTART} wandb=true": "write loggers.wandb.enabled=true",
    f"{QUICKSTART} ema=0.99": "write teacher=ema",
    f"{QUICKSTART} accum_iter=4": "write data.micro_batch=4",
    # values
    f"{QUICKSTART} data.transform.ops.jitter={{probabilty:1}}": (
        "there is no data.transform.ops.jitter.probabilty; did you mean 'probability'?"
    ),
    f"{QUICKSTART} data.transform.crops={{one:{{size:32,count:2,scle:[0.6,1.0]}}}}": (
        "data.transform.crops.one.scle=[0.6, 1.0]: MultiCrop has no such option; did you mean"
    ),
    f"{QUICKSTART} resume=true": (
        "resume.mode=True: should be a valid string; auto (the default), never, or the path of a "
        "run or a checkpoint"
    ),
    f"{QUICKSTART} heads.prototypes.num_prototypes=3000": (
        "should be a valid list; write heads.prototypes.num_prototypes=[3000]"
    ),
    f"{QUICKSTART} loss.assign_crops=0": "should be a valid list; write loss.assign_crops=[0]",
    f"{QUICKSTART} num_epochs=0.5": "num_epochs=0.5: should be a valid integer",
}


@pytest.mark.parametrize("typed", ANSWERS)
def test_what_to_type_instead_is_said(typed, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(typed.split()) == 2
    printed = capsys.readouterr().err
    assert ANSWERS[typed] in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.iterdir())


def test_every_key_that_is_told_exists():
    cfg, _ = Source.of(["config=pretrain/swav/folder", "data=folder"]).read()
    for ours, others in OTHER_NAMES.items():
        for name in others.split():
            hint = unknown_key(name, "1", cfg)
            assert hint.startswith("write "), f"{name}: {ours} is no key of a training"


def test_a_whole_mapping_takes_the_place_of_another():
    crops = "data.transform.crops={one:{size:32,count:2,scale:[0.6,1.0]}}"
    cfg, problems = Source.of([QUICKSTART, crops]).read()
    assert not problems
    assert cfg.data.transform.crops == {"one": {"size": 32, "count": 2, "scale": [0.6, 1.0]}}
