"""What differs on a GPU: the same training as on a CPU, 16 bits, transfers, NCCL.

Skipped without a GPU. The tests for one GPU have passed on an H200; those for two have never run.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loaders import OPTIONS
from test_offline_runs import tiny_of
from tiny_runs import folder_of, losses, run_tool, saved, train

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.config.options import TrainOptions, options_of
from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.loading.batch_reader import BadImageLimit, BatchReader
from ssl_platform.data.loading.loader import Loader
from ssl_platform.data.loading.sampler import SequentialSampler
from ssl_platform.data.loading.transport import Transport
from ssl_platform.data.sets.shapes import Shapes
from ssl_platform.engine.build import Builder
from ssl_platform.hooks.step_timing import PARTS
from ssl_platform.registry import OPTIMIZERS, load_components

GPU = "cuda"
METHODS = ["swav", "deepcluster_v2", "sela_v2"]
OPTIMIZER_OPTIONS = {
    "LARC": {
        "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "trust_coefficient": 0.1, "eps": 1e-8,
        "clip": False,
    },
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": False},
    "AdamW": {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01},
}  # fmt: skip

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU: by default cuDNN rounds the factors of a convolution to 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # of processes that a test starts


def overrides_of(method: str, tiny: list[str]) -> list[str]:
    own = tiny if method == "swav" else tiny_of(method, tiny)
    # a small rate, so that rounding is not magnified from step to step
    return [*own, "~hooks.knn", "optimizer.lr=0.01", "save.keep=9"]


def on(device: str, method: str, tiny: list[str], folder: Path, *more: str) -> list[float]:
    train(overrides_of(method, tiny), folder, f"device={device}", *more)
    return losses(folder)


@pytest.mark.parametrize("method", METHODS)
def test_the_first_losses_are_those_of_a_cpu(method, tiny, tmp_path):
    expected = on("cpu", method, tiny, tmp_path / "cpu")
    actual = on(GPU, method, tiny, tmp_path / "gpu", "precision=float32")
    # one epoch: a later one has new labels, and rounding may move a sample to another cluster
    assert actual[:4] == pytest.approx(expected[:4], rel=1e-3)


def test_a_teacher_follows_as_on_a_cpu(tiny, tmp_path):
    options = ("teacher=ema", "teacher.momentum=0.5", "teacher.crops=[0,1]", "evaluate=teacher")
    for device in ("cpu", GPU):
        on(device, "swav", tiny, tmp_path / device, "precision=float32", *options)
    expected, actual = (saved(tmp_path / device, 1)["model"] for device in ("cpu", GPU))
    weights = [name for name in expected if name.startswith("teacher.")]
    assert weights
    for name in weights:
        torch.testing.assert_close(actual[name].cpu(), expected[name], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_micro_batches_in_16_bits_are_near_those_of_a_cpu(precision, tiny, tmp_path):
    options = ("data.micro_batch=8", "clip_grad_norm=5", "teacher=ema", "teacher.crops=[0]")
    expected = on("cpu", "swav", tiny, tmp_path / "cpu", "precision=float32", *options)
    actual = on(GPU, "swav", tiny, tmp_path / "gpu", f"precision={precision}", *options)
    assert actual[:4] == pytest.approx(expected[:4], rel=3e-2)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_resumed_run_in_16_bits_goes_on_with_its_scaler(precision, tiny, tmp_path):
    options = (f"precision={precision}", "loss.queue_length=64", "loss.queue_start_epoch=0")
    expected = on(GPU, "swav", tiny, tmp_path / "unbroken", *options)
    assert np.isfinite(expected).all()
    on(GPU, "swav", tiny, tmp_path / "cut", *options)
    shutil.rmtree(folder_of(3, tmp_path / "cut"))
    # not bit-equal: a GPU may add up gradients in another order
    assert on(GPU, "swav", tiny, tmp_path / "cut", *options) == pytest.approx(expected, rel=1e-2)
    scalers = [saved(tmp_path / name, 3)["scaler"] for name in ("unbroken", "cut")]
    assert scalers[0] == scalers[1] and bool(scalers[0]) == (precision == "float16")


def test_batches_arrive_on_the_gpu_from_pinned_memory():
    images = Shapes(num_samples=4, size=16, seed=0)
    images.prepare()
    transform, order = CenterCrop(resize=16, size=16), SequentialSampler(range(4), 0, 1)
    batches = [[(0, index) for index in range(4)]]
    transport = Transport(
        BatchReader(
            images, transform, seed=0, num_workers=0,
            limit=BadImageLimit(0.0, len(images), replace_bad=True),
        ), batches, batch_size=4,
        num_workers=0, start_method=None, timeout_seconds=60, pin_memory=True,
    )  # fmt: skip
    (host,) = transport
    assert all(torch.from_numpy(crop).is_pinned() for crop in host.crops)

    def first_on(device: str) -> Any:
        (batch,) = Loader(images, transform, order, OPTIONS, torch.device(device))
        return batch

    on_gpu, on_cpu = first_on(GPU), first_on("cpu")
    assert {t.device.type for t in (*on_gpu.crops, on_gpu.label, on_gpu.index)} == {GPU}
    assert on_gpu.index.tolist() == on_cpu.index.tolist()
    assert torch.allclose(on_gpu.crops[0].cpu(), on_cpu.crops[0], atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZER_OPTIONS)
def test_steps_of_an_optimizer_are_those_of_a_cpu(name):
    load_components()

    def trained_on(device: str) -> list[torch.Tensor]:
        random = torch.Generator().manual_seed(0)
        params = [
            torch.randn(shape, generator=random).to(device).requires_grad_()
            for shape in ((40, 30), (30,))
        ]
        optimizer = OPTIMIZERS.build({"name": name, **OPTIMIZER_OPTIONS[name]}, params)
        for _ in range(3):
            for param in params:
                param.grad = torch.randn(param.shape, generator=random).to(device)
            optimizer.step()
        return [param.detach().cpu() for param in params]

    for actual, expected in zip(trained_on(GPU), trained_on("cpu"), strict=True):
        assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_state_of_a_method_lies_on_the_gpu(method, tiny, tmp_path):
    queue = ["loss.queue_length=64"] if method == "swav" else []
    overrides = [*overrides_of(method, tiny), *queue, f"device={GPU}", f"output_dir={tmp_path}"]
    options = options_of(compose(overrides))
    assert isinstance(options, TrainOptions)
    run = Builder(options).run()
    buffers = dict(run.loss.named_buffers())
    own = {"queue"} if method == "swav" else {"bank.embeddings", "assignments"}
    assert own <= set(buffers)
    assert {b.device.type for b in (*buffers.values(), *run.model.parameters())} == {GPU}


def test_an_evaluation_finds_on_the_gpu_what_a_cpu_finds(pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures = {}
    for device in ("cpu", GPU):
        figures[device] = ssl_platform.run(
            compose(
                [
                    "config=benchmark/knn/folder", f"checkpoint={pretrained}", "data=shapes",
                    "data.train.num_samples=300", "data.val.num_samples=200", "baselines=false",
                    "task.k=[20]", f"device={device}", f"name={device}",
                    f"cache.folder={tmp_path / device}", "launch.threads=1",
                ]
            )
        ).figures  # fmt: skip
    actual, expected = ({k: v["top1"] for k, v in figures[d].items()} for d in (GPU, "cpu"))
    assert actual == pytest.approx(expected, abs=1)  # percent: two of the 200 images


def test_a_step_is_profiled_by_events_of_the_gpu(tiny, tmp_path):
    results = train(overrides_of("swav", tiny), tmp_path, f"device={GPU}", "profile=true")
    parts = results["profile"]["parts"]
    assert list(parts) == list(PARTS)
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    assert min(part["seconds"] for part in parts.values()) >= 0
    assert Path(results["profile"]["trace"]).exists()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("method", METHODS)
def test_two_gpus_train_as_two_processes_of_a_cpu(method, tiny, tmp_path):
    """NCCL, torch's batch norm and Sinkhorn in logarithms, against gloo and the code for a CPU."""
    both = [*overrides_of(method, tiny), "launch.processes=2", "precision=float32"]
    for device in ("cpu", GPU):
        run_tool([*both, f"device={device}", f"output_dir={tmp_path / device}"])
    actual, expected = (losses(tmp_path / device)[:4] for device in (GPU, "cpu"))
    assert actual == pytest.approx(expected, rel=1e-3)
