"""Composing: which values win, what is kept, what a saved config is good for."""

from omegaconf import OmegaConf

from ssl_platform import config
from ssl_platform.running import claimed

QUICKSTART = "config=pretrain/swav/quickstart"


def test_values_are_overridden_by_plain_path_and_parts_by_group():
    cfg = config.compose(
        [QUICKSTART, "optimizer.lr=0.5", "trunk=resnet18_small", "loss.epsilon=.03"]
    )
    assert (cfg.optimizer.lr, cfg.loss.epsilon) == (0.5, 0.03)
    assert (cfg.trunk.name, cfg.trunk.width) == ("ResNet", 64)


def test_a_run_is_named_after_its_config_unless_told_otherwise():
    assert config.compose([QUICKSTART]).output_dir == "runs/pretrain/swav/quickstart"
    assert config.compose([QUICKSTART, "name=mine"]).output_dir == "runs/mine"
    assert config.compose([QUICKSTART, "output_dir=/x"]).output_dir == "/x"


def test_a_hook_can_be_removed_and_added():
    cfg = config.compose(
        [QUICKSTART, "~hooks.knn", "+hooks.more={name: CropPicture, num_images: 2}"]
    )
    assert "knn" not in cfg.hooks and cfg.hooks.more.num_images == 2


def test_the_saved_config_runs_again_unchanged(tmp_path):
    cfg = config.compose([QUICKSTART, f"output_dir={tmp_path}", "optimizer.lr=0.123"])
    with claimed(cfg, tmp_path):
        pass
    again = config.compose([f"config={tmp_path / 'config.yaml'}"])
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(cfg, resolve=True)


def test_a_saved_config_takes_overrides(tmp_path):
    cfg = config.compose([QUICKSTART])
    with claimed(cfg, tmp_path):
        pass
    again = config.compose([f"config={tmp_path / 'config.yaml'}", "name=other", "seed=3"])
    assert (again.seed, again.output_dir) == (3, "runs/other")


def test_a_runnable_file_of_the_users_may_lie_anywhere(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "# @package _global_\n"
        "defaults: [override /trunk: resnet18, pretrain/swav/quickstart, _self_]\n"
        "num_epochs: 2\n".replace("override /trunk: resnet18, ", "")
    )
    assert config.compose([f"config={mine}"]).num_epochs == 2


def test_config_dirs_are_searched_for_parts_and_runnable_files(tmp_path):
    (tmp_path / "trunk").mkdir()
    source = (config.CONFIG_DIR / "trunk" / "resnet18.yaml").read_text()
    (tmp_path / "trunk" / "mine.yaml").write_text(source.replace("width: 64", "width: 9"))
    assert config.compose([QUICKSTART, "trunk=mine"], [tmp_path]).trunk.width == 9


def test_a_reference_to_the_environment_is_kept_as_a_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "do-not-write-me")
    cfg = config.compose([QUICKSTART, "name=${oc.env:A_SECRET}", f"output_dir={tmp_path}"])
    with claimed(cfg, tmp_path):
        pass
    assert cfg.name == "do-not-write-me"
    assert "do-not-write-me" not in (tmp_path / "config.yaml").read_text()
