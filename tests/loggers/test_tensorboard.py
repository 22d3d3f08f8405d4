"""What TensorBoard finds in the files of a run."""

import json
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from run_infos import info
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import train

from ssl_platform.loggers.tensorboard import TensorBoard


def started(folder, step=0) -> TensorBoard:
    logger = TensorBoard(enabled=True)
    logger.start(info(folder, step=step))
    return logger


def found(folder) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_it_forgets_what_is_done_again(tmp_path):
    for first_step, numbers in ((0, (1, 2, 3)), (2, (3, 4))):
        logger = started(tmp_path, first_step)
        for step in numbers:
            figures = {"loss": 10.0 * first_step + step, "health/x": 0.5, "seconds": 1.0}
            logger.figures(step, 0, figures)
    assert found(tmp_path).Tags()["scalars"] == ["Training/Loss", "health/x"]
    losses = [(event.step, event.value) for event in found(tmp_path).Scalars("Training/Loss")]
    assert losses == [(1, 1.0), (2, 2.0), (3, 23.0), (4, 24.0)]


def test_it_shows_a_picture(tmp_path):
    started(tmp_path).image("crops", np.zeros((2, 3, 3), np.uint8), 1)
    (event,) = found(tmp_path).Images("Samples/crops")
    assert (event.step, event.height, event.width) == (1, 2, 3)
    assert event.encoded_image_string.startswith(b"\x89PNG")


def test_a_run_has_the_tags_that_boards_know_and_one_chart_of_the_loss_with_ln_k(tiny, tmp_path):
    train(tiny, tmp_path, "loggers.tensorboard.enabled=true", "~hooks.knn", "num_epochs=2")
    events = found(tmp_path)
    assert {"Training/Loss", "Training/Learning_rate", "Speed/img_per_sec", "Speed/data_wait"} <= {
        tag for tag in events.Tags()["scalars"] if "health/" not in tag
    }
    assert {event.step for event in events.Scalars("health/effective_rank")} == {4, 8}
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert b"Training/Loss" in layout and b"Training/ln_K" in layout
    assert events.Images("Samples/crops")


def test_switched_off_it_leaves_no_file(tiny, tmp_path):
    train(tiny, tmp_path, "~loggers.tensorboard", "~hooks.knn", "num_epochs=2")
    assert not (tmp_path / "tensorboard").exists() and (tmp_path / "crops.png").exists()


def projected(folder) -> Any:
    """The client of TensorBoard's own plug-in for the projector."""
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from werkzeug.test import Client
    from werkzeug.wrappers import Response

    runs = SimpleNamespace(list_runs=lambda *_, **__: [SimpleNamespace(run_name=".")])
    place = str(folder / "tensorboard")
    context = SimpleNamespace(multiplexer=None, data_provider=runs, logdir=place, flags=None)
    apps = ProjectorPlugin(context).get_plugin_apps()

    def get(path: str, **query: str) -> bytes:
        answer = Client(apps[path], Response).get(path, query_string={"run": ".", **query})
        assert answer.status_code == 200, answer.data
        return answer.data

    return get


def test_its_projector_shows_the_latest_embeddings_with_thumbnails(tmp_path):
    logger, rng = started(tmp_path), np.random.default_rng(0)
    vectors = rng.standard_normal((5, 3)).astype(np.float32)
    images = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    names = ["cat", "a\tdog\n", "", "größe", "cat"]
    logger.figures(1, 0, {"loss": 1.0})
    logger.embeddings("sample", vectors[::-1], images[::-1], names, 1)
    logger.embeddings("sample", vectors, images, names, 2)
    started(tmp_path, 2).embeddings("others", vectors[:2], images[:2], [], 3)
    get = projected(tmp_path)
    entries = {entry["tensorName"]: entry for entry in json.loads(get("/info"))["embeddings"]}
    assert entries["sample"]["tensorShape"] == [5, 3] and "metadataPath" not in entries["others"]
    tensor = np.frombuffer(get("/tensor", name="sample"), np.float32).reshape(5, 3)
    np.testing.assert_allclose(tensor, vectors, rtol=1e-5)
    labels = get("/metadata", name="sample").decode().splitlines()
    assert labels == ["cat", "a\\tdog\\n", "-", "größe", "cat"]
    sprite = np.asarray(Image.open(BytesIO(get("/sprite_image", name="sample"))))
    assert sprite.shape == (24, 24, 3) and entries["sample"]["sprite"]["singleImageDim"] == [8, 8]
    assert (sprite[8:16, :8] == images[3]).all()
