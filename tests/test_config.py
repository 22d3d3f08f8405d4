"""Composing: which values win, what is kept, what a saved config is good for."""

import copy

import pytest
from omegaconf import OmegaConf

from ssl_platform.config import compose
from ssl_platform.config import source as config
from ssl_platform.config.saved import with_defaults
from ssl_platform.errors import ConfigError
from ssl_platform.job.directory import claimed

QUICKSTART = "config=pretrain/swav/quickstart"


def test_values_are_overridden_by_plain_path_and_parts_by_group():
    cfg = compose([QUICKSTART, "optimizer.lr=0.5", "trunk=resnet18_small", "loss.epsilon=.03"])
    assert (cfg.optimizer.lr, cfg.loss.epsilon) == (0.5, 0.03)
    assert (cfg.trunk.name, cfg.trunk.width) == ("ResNet", 64)


def test_a_run_is_named_after_its_config_unless_told_otherwise():
    assert compose([QUICKSTART]).output_dir == "runs/pretrain/swav/quickstart"
    assert compose([QUICKSTART, "name=mine"]).output_dir == "runs/mine"
    assert compose([QUICKSTART, "output_dir=/x"]).output_dir == "/x"


FOLDER, KNN = "config=pretrain/swav/folder", "config=benchmark/knn/folder"
FEATURES, OF_FILE = "config=analysis/features", "config=analysis/clusters_of_file"


@pytest.mark.parametrize("chosen", [FOLDER, KNN, FEATURES, OF_FILE, QUICKSTART])
def test_a_list_is_chosen_by_a_part_of_the_data(chosen):
    listed = config.Source.of([chosen, "data=list", "data.train.path=images.csv"])
    cfg, problems = listed.read()
    node = {"name": "ListFile", "path": "images.csv", "root": None, "allow_outside": False}
    assert (cfg.data.train, cfg.data.val, problems) == (node, None, [])
    both = ["data=labelled_lists", "data.train.path=images.csv", "data.val.path=val.csv"]
    cfg, problems = config.Source.of([chosen, *both]).read()
    assert (cfg.data.train, cfg.data.val, problems) == (node, node | {"path": "val.csv"}, [])


@pytest.mark.parametrize("chosen", [FOLDER, KNN, FEATURES, OF_FILE, QUICKSTART])
@pytest.mark.parametrize("key", ["train", "val"])
def test_a_whole_component_takes_the_place_of_another(chosen, key):
    override = f"data.{key}={{name: ListFile, path: images.csv, root: /images}}"
    cfg, problems = config.Source.of([chosen, override, "seed=5"]).read()
    node = {"name": "ListFile", "path": "images.csv", "root": "/images"}
    assert (cfg.data[key], cfg.seed, problems) == (node, 5, [])


def test_options_of_the_same_component_are_merged():
    override = "data.train={name: Shapes, num_samples: 100}"
    cfg, _ = config.Source.of([QUICKSTART, override]).read()
    assert cfg.data.train == {"name": "Shapes", "num_samples": 100, "size": 32, "seed": 0}


def test_a_whole_component_beside_a_mistake_is_no_mistake():
    override = "data.train={name: ListFile, path: a.csv, root: /x}"
    _, problems = config.Source.of([FOLDER, override, "data.batchsize=3"]).read()
    assert problems == ["data.batchsize=3: there is no data.batchsize; did you mean 'batch_size'?"]


def test_resume_is_short_for_its_mode(tmp_path):
    cfg = compose([QUICKSTART, "resume=/a/run", "resume.exact=true"])
    assert cfg.resume == {"mode": "/a/run", "allow_changes": [], "exact": True}
    assert compose([QUICKSTART, "resume={mode: never}"]).resume.mode == "never"
    OmegaConf.save(cfg, tmp_path / "saved.yaml")
    again = compose([f"config={tmp_path / 'saved.yaml'}", "resume=auto"])
    assert again.resume == {"mode": "auto", "allow_changes": [], "exact": True}
    assert compose([QUICKSTART, "resume=auto"]).resume.mode == "auto"


def test_a_hook_can_be_removed_and_added():
    cfg = compose([QUICKSTART, "~hooks.knn", "+hooks.more={name: CropPicture, num_images: 2}"])
    assert "knn" not in cfg.hooks and cfg.hooks.more.num_images == 2


def test_the_saved_config_runs_again_unchanged(tmp_path):
    cfg = compose([QUICKSTART, f"output_dir={tmp_path}", "optimizer.lr=0.123"])
    with claimed(cfg, tmp_path):
        pass
    again = compose([f"config={tmp_path / 'config.yaml'}"])
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(cfg, resolve=True)


def test_a_saved_config_takes_overrides(tmp_path):
    cfg = compose([QUICKSTART])
    with claimed(cfg, tmp_path):
        pass
    again = compose([f"config={tmp_path / 'config.yaml'}", "name=other", "seed=3"])
    assert (again.seed, again.output_dir) == (3, "runs/other")


def test_a_runnable_file_of_the_users_may_lie_anywhere(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "# @package _global_\n"
        "defaults: [override /trunk: resnet18, pretrain/swav/quickstart, _self_]\n"
        "num_epochs: 2\n".replace("override /trunk: resnet18, ", "")
    )
    assert compose([f"config={mine}"]).num_epochs == 2


def test_config_dirs_are_searched_for_parts_and_runnable_files(tmp_path):
    (tmp_path / "trunk").mkdir()
    source = (config.CONFIG_DIR / "trunk" / "resnet18.yaml").read_text()
    (tmp_path / "trunk" / "mine.yaml").write_text(source.replace("width: 64", "width: 9"))
    assert compose([QUICKSTART, "trunk=mine"], [tmp_path]).trunk.width == 9


def test_a_reference_to_the_environment_is_kept_as_a_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "do-not-write-me")
    cfg = compose([QUICKSTART, "name=${oc.env:A_SECRET}", f"output_dir={tmp_path}"])
    with claimed(cfg, tmp_path):
        pass
    assert cfg.name == "do-not-write-me"
    assert "do-not-write-me" not in (tmp_path / "config.yaml").read_text()


def test_keys_younger_than_a_saved_config_are_at_their_defaults(tmp_path):
    cfg = compose([QUICKSTART, "launch=one_node_8gpu", "~metrics.top1", f"name={tmp_path}"])
    saved = OmegaConf.to_container(cfg)
    old = copy.deepcopy(saved)
    del old["precision"], old["metrics"], old["launch"]["threads"], old["save"], old["output_dir"]
    filled, keys = with_defaults(old)
    assert sorted(keys) == [
        "launch.threads=None",
        "metrics={'top1': {'name': 'TopKAccuracy', 'k': 1}}",
        "output_dir=runs/${name}",
        "precision=auto",
        f"save={saved['save']}",
    ]
    assert filled.pop("metrics") and filled.pop("output_dir") == "runs/${name}"
    assert filled == {k: v for k, v in saved.items() if k not in ("metrics", "output_dir")}
    assert with_defaults(saved) == (saved, [])


def test_parts_and_what_has_no_default_are_never_filled_in():
    saved = OmegaConf.to_container(compose([QUICKSTART]))
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


def test_a_file_does_not_stand_in_the_way_of_another_of_its_name(tmp_path):
    for folder, seed in (("config", 1), ("elsewhere", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(
            "# @package _global_\n"
            f"defaults: [/config/pretrain/swav/quickstart, _self_]\nseed: {seed}\n"
        )
    assert compose([f"config={tmp_path / 'elsewhere' / 'mine.yaml'}"]).seed == 2
    assert compose(["config=mine"], [tmp_path]).seed == 1


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.val.path=/v", "data.val is null; give all of it, as in 'data.val={path: /v, ...}'"),
        ("launch.slurm.partition=x", "or another launch=one_node_8gpu|one_process|slurm"),
    ],
)
def test_a_value_below_null_says_what_to_type(override, told):
    with pytest.raises(ConfigError) as error:
        compose(["config=pretrain/swav/folder", "data.train.path=/t", override])
    assert any(told in line for line in error.value.problems)
