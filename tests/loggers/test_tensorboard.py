"""What TensorBoard finds in the files of a run."""

import numpy as np
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
