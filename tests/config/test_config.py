"""Composing: which values win, what is kept, what a saved config is good for."""

import copy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from ssl_platform.config import compose
from ssl_platform.config.saved import config_of, differences, with_defaults
from ssl_platform.config.shipped import CONFIG_DIR
from ssl_platform.config.source import Source
from ssl_platform.errors import ConfigError
from ssl_platform.job.directory import claimed

QUICKSTART, FOLDER = "config=pretrain/swav/quickstart", "config=pretrain/swav/folder"
CONFIGS = [
    FOLDER,
    "config=benchmark/knn/folder",
    "config=analysis/features",
    "config=analysis/clusters_of_file",
    QUICKSTART,
]


def composed(*overrides: str, config_dirs: tuple[Path, ...] = ()) -> Any:
    cfg, problems = Source.of(overrides, config_dirs).read()
    assert problems == []
    return cfg


def saved(cfg: DictConfig, folder: Path) -> str:
    with claimed(cfg, folder):
        return f"config={folder / 'config.yaml'}"


@pytest.mark.parametrize(
    ("overrides", "values"),
    [
        (["optimizer.lr=0.5", "loss.epsilon=.03"], {"optimizer.lr": 0.5, "loss.epsilon": 0.03}),
        (["trunk=resnet18_small"], {"trunk.name": "ResNet", "trunk.width": 64}),
        ([], {"output_dir": "runs/pretrain/swav/quickstart"}),
        (["name=mine"], {"output_dir": "runs/mine"}),
        (["output_dir=/x"], {"output_dir": "/x"}),
        (["resume=/a/run", "resume.exact=true"], {"resume.mode": "/a/run", "resume.exact": True}),
        (["resume={mode: never}"], {"resume.mode": "never"}),
        (
            ["~hooks.knn", "+hooks.more={name: CropPicture, num_images: 2}"],
            {"hooks.knn": None, "hooks.more.num_images": 2},
        ),
        (  # options of the same component are merged
            ["data.train={name: Shapes, num_samples: 100}"],
            {"data.train": {"name": "Shapes", "num_samples": 100, "size": 32, "seed": 0}},
        ),
    ],
)
def test_overrides_decide_the_values(overrides, values):
    cfg = composed(QUICKSTART, *overrides)
    assert {key: OmegaConf.select(cfg, key) for key in values} == values


@pytest.mark.parametrize("chosen", CONFIGS)
def test_a_list_is_chosen_by_a_part_of_the_data(chosen):
    data = composed(chosen, "data=list", "data.train.path=images.csv").data
    node = {"name": "ListFile", "path": "images.csv", "root": None, "allow_outside": False}
    assert (data.train, data.val) == (node, None)
    both = ["data=labelled_lists", "data.train.path=images.csv", "data.val.path=val.csv"]
    data = composed(chosen, *both).data
    assert (data.train, data.val) == (node, node | {"path": "val.csv"})


@pytest.mark.parametrize("chosen", CONFIGS)
@pytest.mark.parametrize("key", ["train", "val"])
def test_a_whole_component_takes_the_place_of_another(chosen, key):
    node = {"name": "ListFile", "path": "images.csv", "root": "/images"}
    override = f"data.{key}={{name: ListFile, path: images.csv, root: /images}}"
    cfg = composed(chosen, override, "seed=5")
    assert (cfg.data[key], cfg.seed) == (node, 5)
    _, problems = Source.of([chosen, override, "data.batchsize=3"]).read()
    assert problems == ["data.batchsize=3: there is no data.batchsize; write data.batch_size=3"]


def test_a_saved_config_runs_again_unchanged_or_with_overrides(tmp_path):
    cfg = compose([QUICKSTART, "optimizer.lr=0.123", "resume.exact=true"])
    again = compose([saved(cfg, tmp_path)])
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(cfg, resolve=True)
    changed = composed(saved(cfg, tmp_path), "name=other", "seed=3", "resume=never")
    assert (changed.seed, changed.output_dir) == (3, "runs/other")
    assert changed.resume == {"mode": "never", "allow_changes": [], "exact": True}


def test_a_reference_to_the_environment_is_kept_as_a_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "do-not-write-me")
    cfg = composed(QUICKSTART, "name=${oc.env:A_SECRET}")
    saved(cfg, tmp_path)
    assert cfg.name == "do-not-write-me"
    assert "do-not-write-me" not in (tmp_path / "config.yaml").read_text()


def test_runnable_files_and_parts_of_the_users_may_lie_anywhere(tmp_path):
    for folder, seed in (("config", 1), ("elsewhere", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(
            "# @package _global_\n"
            f"defaults: [/config/pretrain/swav/quickstart, _self_]\nseed: {seed}\n"
        )
    (tmp_path / "trunk").mkdir()
    part = (CONFIG_DIR / "trunk" / "resnet18.yaml").read_text()
    (tmp_path / "trunk" / "mine.yaml").write_text(part.replace("width: 64", "width: 9"))
    assert composed(f"config={tmp_path / 'elsewhere' / 'mine.yaml'}").seed == 2
    # the file of the same name does not stand in its way
    cfg = composed("config=mine", "trunk=mine", config_dirs=(tmp_path,))
    assert (cfg.seed, cfg.trunk.width) == (1, 9)


def test_the_config_of_a_run_is_found_from_the_run_and_from_its_checkpoints(tmp_path):
    run = tmp_path / "checkpoints" / "mine"
    saved(composed(QUICKSTART), run)
    assert config_of(run) == config_of(run / "checkpoints" / "step_1") == run / "config.yaml"


def test_keys_younger_than_a_saved_config_are_at_their_defaults(tmp_path):
    overrides = ["launch=one_node_8gpu", "~metrics.top1", f"name={tmp_path}"]
    whole = OmegaConf.to_container(composed(QUICKSTART, *overrides))
    old = copy.deepcopy(whole)
    del old["precision"], old["metrics"], old["launch"]["threads"], old["save"], old["output_dir"]
    filled, keys = with_defaults(old)
    assert sorted(keys) == [
        "launch.threads=None",
        "metrics={'top1': {'name': 'TopKAccuracy', 'k': 1}}",
        "output_dir=runs/${name}",
        "precision=auto",
        f"save={whole['save']}",
    ]
    assert filled.pop("metrics") and filled.pop("output_dir") == "runs/${name}"
    assert filled == {k: v for k, v in whole.items() if k not in ("metrics", "output_dir")}
    assert with_defaults(whole) == (whole, [])


@pytest.mark.parametrize("made", [("device", "workers"), ("workers", "device")])
def test_a_run_opens_that_has_keys_that_are_gone(made, tmp_path):
    new = compose([QUICKSTART])
    whole = OmegaConf.to_container(new)
    old = copy.deepcopy(whole)
    old["data"]["normalize_on"], old["data"]["transform"]["augment_on"] = made
    assert with_defaults(old) == (whole, [])
    OmegaConf.save(old, tmp_path / "config.yaml")
    assert differences(tmp_path / "config.yaml", new, []) == (
        []
        if made == ("device", "workers")
        else [
            "data.normalize_on: workers there, not set here",
            "data.transform.augment_on: device there, not set here",
        ]
    )


def test_parts_and_what_has_no_default_are_never_filled_in():
    saved = OmegaConf.to_container(composed(QUICKSTART))
    for key in ("trunk", "data", "optimizer", "num_epochs"):
        del saved[key]
    del saved["loss"]["epsilon"]
    assert with_defaults(saved) == (saved, [])


def test_the_defaults_are_those_of_the_task():
    filled, _ = with_defaults({"task": {"name": "KNN"}, "cache": {"folder": "x"}})
    assert filled["cache"] == {"folder": "x", "dtype": "float16"}
    assert "pca_components" in filled and "save" not in filled
    filled, _ = with_defaults({"task": {"name": "OfAPlugin"}})
    assert "seed" in filled and not {"save", "cache"} & filled.keys()


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("data.val.path=/v", "data.val is null; give all of it, as in 'data.val={path: /v, ...}'"),
        ("launch.slurm.partition=x", "or another launch=one_node_8gpu|one_process|slurm"),
    ],
)
def test_a_value_below_null_says_what_to_type(override, hint):
    with pytest.raises(ConfigError) as error:
        compose([FOLDER, "data.train.path=/t", override])
    assert any(hint in line for line in error.value.problems)
