"""Data workers that die, hang, are interrupted, or are sent signals."""

import os
import signal
import subprocess
import sys
from multiprocessing import connection

import numpy as np
import pytest
import torch
from loaders import Numbered, loader

from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.loading import transport
from ssl_platform.data.loading.sampler import SequentialSampler
from ssl_platform.errors import DataWorkerError


class Deadly(Numbered):
    """Whoever reads image 5 dies of it."""

    def read(self, index: int) -> np.ndarray:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


class Hanging(Numbered):
    """Whoever reads image 5 waits for ever, as on a network drive that is gone."""

    def read(self, index: int) -> np.ndarray:
        while index == 5:
            signal.pause()
        return super().read(index)


def test_a_dead_worker_is_one_line_with_its_image_once_the_next_batch_is_wanted():
    """It does not disturb the forward pass that goes on meanwhile."""
    data = loader(Deadly(12), num_workers=2)
    batches = iter(data)
    next(batches)  # meanwhile image 5 is read
    connection.wait([worker.process.sentinel for worker in data._transport._workers])
    with pytest.raises(DataWorkerError) as caught:
        list(batches)
    assert str(caught.value) == (
        "a data worker has died at 5.jpg (killed; the usual reason is a lack of memory: lower "
        "data.num_workers)"
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_pass_that_is_given_up_leaves_the_next_one_whole(num_workers):
    dataset = Numbered(40)
    data = loader(dataset, num_workers=num_workers)
    kept = [next(iter(data)), *data]
    assert [batch.index[0].item() for batch in kept] == [0, *range(0, 40, 4)]
    first_pixels = [data.to_pixels(batch.crops[0])[:, 0, 0, 0].tolist() for batch in kept]
    assert first_pixels == [batch.index.tolist() for batch in kept]


@pytest.mark.parametrize("call", range(1, 6))  # the answers of two workers to three batches
def test_a_pass_that_is_interrupted_leaves_the_next_one_whole(call, monkeypatch):
    data = loader(Numbered(40), num_workers=2)
    calls = iter(range(call))

    def wait(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return connection.wait(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(transport, "wait", wait)
        list(data)
    assert [batch.index.tolist() for batch in data] == np.arange(40).reshape(-1, 4).tolist()


def test_a_worker_that_hangs_is_one_line_with_the_image_that_it_is_at():
    data = loader(Hanging(12), num_workers=1)
    batches = iter(data)
    next(batches)
    worker = data._transport._workers[0].process
    while data._transport._read.current_image(worker=0) != "5.jpg":
        pass
    data._transport._timeout_seconds = 0.0
    with pytest.raises(DataWorkerError) as caught:
        list(batches)
    assert str(caught.value) == "a data worker has brought nothing for 0 minutes, it hangs at 5.jpg"
    worker.join()
    assert worker.exitcode == -signal.SIGKILL


def test_crops_need_no_room_in_dev_shm(monkeypatch):
    statvfs = os.statvfs
    full = os.statvfs_result([4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255])
    monkeypatch.setattr(os, "statvfs", lambda at: full if at == "/dev/shm" else statvfs(at))
    data = loader(Numbered(12), num_workers=1)
    assert torch.cat([batch.index for batch in data]).tolist() == list(range(12))


PROGRAM = """
import os, signal
from loaders import Numbered, loader

def wait_for_signal(number, frame):
    global signalled
    signalled = True

signal.signal(signal.SIGTERM, wait_for_signal)
data = loader(Numbered(40), num_workers=2)
batches = iter(data)
next(batches)
os.killpg(0, signal.SIGTERM)  # as a scheduler does: to every process of the job
assert len(list(batches)) == 9 and signalled
print("end")
"""


def test_workers_outlive_a_signal_but_not_their_process():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))},
        capture_output=True,
        text=True,
        timeout=200,
        start_new_session=True,
    )
    assert (done.stdout, done.returncode) == ("end\n", 0), done.stderr


def test_a_batch_larger_than_a_pipe_does_not_stop_it():
    samples = [0] * 60_000  # some 240 kB of task
    data = loader(
        Numbered(1),
        SequentialSampler(samples, 0, 1),
        CenterCrop(resize=1, size=1),
        batch_size=len(samples) // 4,
        num_workers=1,
    )
    assert [len(batch.index) for batch in data] == [len(samples) // 4] * 4
