"""What somebody may have meant by a key or a name that is not there."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ssl_platform.config.shipped import groups
from ssl_platform.errors import first_few, nearest

# our keys, by what other projects call them in configs and flags. A word may stand at several
# keys: the first that the config has is told
OTHER_NAMES = {
    "optimizer.lr": "learning_rate base_lr blr max_lr eta ref_lr lr0",
    "optimizer.weight_decay": "wd l2 weight_decay_rate",
    "optimizer": "opt optim optimizer_name",
    "schedule.warmup_epochs": "warmup warmup_steps num_warmup_epochs",
    "schedule.start_lr": "start_warmup warmup_lr warmup_start_lr",
    "schedule.final_lr": "min_lr end_lr",
    "schedule": "scheduler lr_scheduler sched lr_schedule",
    "data.batch_size": "bs global_batch_size train_batch_size batch batchsize",
    "data.micro_batch": "micro_batch_size microbatch microbatch_size accum_iter grad_accum "
    "accumulate_grad_batches gradient_accumulation_steps",
    "data.eval_batch_size": "val_batch_size test_batch_size eval_bs",
    "data.num_workers": "workers nworkers n_workers dataloader_workers num_data_workers",
    "data.train.path": "data_path data_dir dataset dataset_path root train_dir input_dir "
    "train_data img_dir images path",
    "data.path": "data_path data_dir dataset dataset_path root input_dir img_dir images",
    "data.val": "val_dir val_path val_data",
    "data.transform": "augmentations transforms aug transform",
    "data.transform.crops": "nmb_crops size_crops num_crops crop_size image_size img_size "
    "min_scale_crops max_scale_crops local_crops_number global_crops_scale",
    "num_epochs": "epochs max_epochs n_epochs nepochs num_train_epochs total_epochs",
    "trunk": "backbone arch model encoder network architecture model_name net",
    "launch.processes": "gpus gpu num_gpus ngpus n_gpus nproc_per_node world_size ranks nprocs "
    "num_processes n_proc procs devices num_devices",
    "launch": "slurm submit partition cluster nodes num_nodes n_nodes",
    "device": "accelerator use_gpu cuda use_cuda no_cuda gpu_id",
    "clip_grad_norm": "clip_grad grad_clip gradient_clip_val max_grad_norm gradient_clipping",
    "matmul_precision": "tf32 allow_tf32 float32_matmul_precision",
    "precision": "fp16 amp use_fp16 bf16 mixed_precision use_amp half",
    "sync_batch_norm.enabled": "sync_bn syncbn sync_batchnorm use_sync_bn",
    "heads.prototypes.num_prototypes": "nmb_prototypes n_prototypes k num_clusters n_clusters "
    "prototypes codebook_size",
    "heads.prototypes.out_dim": "feat_dim proj_dim embedding_dim",
    "heads.prototypes.hidden_dim": "hidden_mlp proj_hidden_dim",
    "loss.temperature": "temp tau",
    "loss.epsilon": "eps sinkhorn_epsilon",
    "loss.sinkhorn_iters": "sinkhorn_iterations num_sinkhorn_iters sk_iters",
    "loss.queue_length": "queue queue_size queue_len",
    "loss.queue_start_epoch": "epoch_queue_starts start_queue_at_epoch",
    "loss.freeze_prototypes_steps": "freeze_prototypes_niters freeze_prototypes",
    "loss.freeze_prototypes_epochs": "freeze_prototypes_nepochs",
    "loss.assign_crops": "crops_for_assign",
    "loss": "method criterion algorithm objective",
    "teacher": "ema momentum_teacher base_momentum momentum_encoder ema_decay",
    "output_dir": "output out out_dir save_dir dump_path log_dir work_dir exp_dir save_path "
    "results_dir default_root_dir",
    "name": "exp_name experiment_name run_name experiment",
    "checkpoint": "pretrained weights init_from ckpt ckpt_path pretrained_weights",
    "resume": "resume_from resume_from_checkpoint auto_resume",
    "save.every_epochs": "checkpoint_freq save_freq saveckp_freq save_every save_interval",
    "hooks.log.every_steps": "log_every log_interval print_freq",
    "loggers.wandb.enabled": "use_wandb enable_wandb log_wandb",
    "loggers.wandb.project": "wandb_project",
    "loggers": "logger log_to report_to",
    "seed": "random_seed manual_seed",
}


def unknown_key(key: str, value: str, cfg: Any) -> str:
    """What to type for a key that a config does not have; empty where nothing is like it.

    It may be the last part of a longer key (``lr``), or what another project calls it
    (``backbone``).

    Args:
        key: as it was typed, dotted or not.
        value: as it was typed.
        cfg: the config; None where there is none.
    """
    name = key.rpartition(".")[2].replace("-", "_").lower()
    paths = [*_paths(cfg), *groups()] if cfg is not None else list(OTHER_NAMES)
    places = [path for path in paths if path.rpartition(".")[2] == name]
    section = f"{key.partition('.')[0]}."
    places = [path for path in places if path.startswith(section)] or places
    places.sort(key=lambda path: path.startswith("hooks."))  # they only watch
    if not places:
        places = [ours for ours, others in OTHER_NAMES.items() if name in others.split()]
        places = [path for path in places if path in paths][:1]
    if not places:
        return ""
    return f"write {first_few([_assigned(cfg, path, value) for path in places], 3, between=' or ')}"


def unknown_flag(flag: str, value: str, cfg: Any) -> str:
    """What to type for a flag that is not there, ``--epochs 10``; see `unknown_key`."""
    name, _, attached = flag.lstrip("-").partition("=")
    value = attached or value
    if name in ("config", "config-name", "config-file", "cfg-file"):
        return f"write config={value or 'NAME'}"
    return unknown_key(name, value, cfg) or (f"write {name}={value}" if value else "see --help")


def _paths(node: Any, above: str = "") -> Iterator[str]:
    """Every key of a config by its dotted path; keys of one mapping before those below them."""
    if not isinstance(node, DictConfig):
        return
    keys = [str(key) for key in node]
    yield from (above + key for key in keys)
    for key in keys:
        if not OmegaConf.is_missing(node, key):
            yield from _paths(node._get_node(key), f"{above}{key}.")


def _assigned(cfg: DictConfig | None, path: str, value: str) -> str:
    """``path=value``: the parts of a group, brackets for a list, no value for a mapping."""
    parts = groups().get(path, [])
    if parts:
        return f"{path}={value if value in parts else '|'.join(parts)}"
    present: Any = cfg
    for name in path.split("."):
        present = present._get_node(name) if isinstance(present, DictConfig) else None
    if isinstance(present, ListConfig) and value and not value.startswith("["):
        value = f"[{value}]"
    if isinstance(present, DictConfig) and "enabled" in present:
        return f"{path}.enabled={value or 'true'}"
    return f"{path}=..." if isinstance(present, DictConfig) or not value else f"{path}={value}"


def no_config(name: str, configs: Sequence[str], parts: dict[str, list[str]]) -> str:
    """What to type for a ``config=`` that is not there.

    Args:
        name: as it was typed.
        configs: every name that ``config=`` takes.
        parts: the names of parts by group.
    """
    below = [config for config in configs if name.strip("/") in _folders(config)]
    if below:
        return f"one of {', '.join(below)}"
    groups_of_it = [group for group, names in parts.items() if name in names]
    if groups_of_it:
        return f"{name} is a part: {groups_of_it[0]}={name}, beside config=..."
    kind, _, rest = name.partition("/")
    methods = sorted({c.split("/")[1] for c in configs if c.startswith(f"{kind}/")})
    method = rest.split("/")[0]
    if kind == "pretrain" and method and not get_close_matches(method, methods, n=1, cutoff=0.6):
        return (
            f"there is no method {method!r}, but {', '.join(methods)}; docs/extending.md adds one"
        )
    same_end = [c for c in configs if c.endswith(f"/{name}")]
    return f"one of {', '.join(same_end)}" if same_end else nearest(name, configs)


def _folders(config: str) -> set[str]:
    """Each folder of a config's name, by itself and with those above it."""
    names = config.split("/")[:-1]
    return {"/".join(names[a:b]) for a in range(len(names)) for b in range(a + 1, len(names) + 1)}


def no_override(word: str, configs: Sequence[str], parts: dict[str, list[str]]) -> str:
    """What to type for a word without ``=``."""
    name = word.removesuffix(".yaml").removeprefix("configs/config/")
    if name in configs:
        return f"did you mean config={name}?"
    groups = [group for group, names in parts.items() if name in names]
    if groups:
        return f"did you mean {' or '.join(f'{group}={name}' for group in groups)}?"
    close = get_close_matches(name, configs, n=1, cutoff=0.8)
    return f"did you mean config={close[0]}?" if close else "write key=value"


def no_command(word: str, commands: Sequence[str]) -> str:
    """The problem of a first word that is nearly a command; empty if it is not."""
    close = get_close_matches(word.lower(), commands, n=1, cutoff=0.75) if word.isalpha() else []
    return f"{word}: no such command; did you mean {close[0]!r}?" if close else ""
