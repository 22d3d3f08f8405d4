"""Where the ranks of a world meet: a store that one process keeps, and who has come to it."""

import logging
import os
import socket
import subprocess
import threading
import time
from datetime import timedelta
from typing import Any

from ssl_platform.errors import ConfigError, first_few
from ssl_platform.launch.job import LaunchOptions, RankFailedError
from ssl_platform.launch.joined import World, number

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
SAY_SECONDS = 5.0  # of waiting in silence
POLL_SECONDS = 0.1
ANSWER_SECONDS = 20.0  # for a store to speak, once it has taken the connection
MAX_NAMED = 8
MAX_PORT = 65535


def meet(world: World, options: LaunchOptions) -> Any:
    """The store of a world that others started, once all ranks have come to it.

    Who waits for long says on standard error for whom, and where.

    Raises:
        ConfigError: the environment gives no place, or one that cannot be had.
        RankFailedError: after ``timeout_minutes`` somebody is still missing.
    """
    patience = _Patience(world, options)
    if not _keeps_store(world.rank):
        patience.wait_for_keeper()
    store = store_of(world, options)
    store.set(f"here/{world.rank}", "")
    patience.wait_for_all(store)
    return store


class _Patience:
    """Waits for others, with words."""

    def __init__(self, world: World, options: LaunchOptions):
        self.world, self.limit = world, options.timeout_minutes
        self.host, self.port = _master(world)
        self.start = time.monotonic()
        self.has_spoken = False

    def wait_for_keeper(self) -> None:
        keeper = "torchrun" if _is_torchrun_s_store() else f"rank 0 of {self.world.size}"
        while not self._is_reachable():
            self._wait(keeper)

    def wait_for_all(self, store: Any) -> None:
        keys = {rank: f"here/{rank}" for rank in range(self.world.size)}
        while not store.check(list(keys.values())):
            absent = [rank for rank, key in keys.items() if not store.check([key])]
            whom = f"{_listed(absent)} of {self.world.size}"
            self._wait(whom, is_told=self.world.rank == 0)

    def _is_reachable(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), SAY_SECONDS).close()
        except socket.gaierror as error:
            raise ConfigError(
                [f"MASTER_ADDR={self.host}: no machine of this name is found ({error.strerror})"]
            ) from error
        except OSError:
            return False
        return True

    def _wait(self, whom: str, *, is_told: bool = True) -> None:
        waited = time.monotonic() - self.start
        awaited = f"{whom} at {self.host}:{self.port}"
        cure = f"if nothing starts them, type: unset {self.world.variables}"
        if waited > 60 * self.limit:
            raise RankFailedError(
                f"rank {self.world.rank} has waited for {awaited} for launch.timeout_minutes="
                f"{self.limit}; {cure}"
            )
        if waited > SAY_SECONDS and is_told and not self.has_spoken:
            logger.warning("rank %d waits for %s; %s", self.world.rank, awaited, cure)
            self.has_spoken = True
        time.sleep(POLL_SECONDS)


def _listed(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {first_few(ranks, MAX_NAMED)}"


def store_of(world: World, options: LaunchOptions) -> Any:
    """The store through which the ranks of this attempt meet."""
    from torch.distributed import PrefixStore

    timeout = timedelta(minutes=options.timeout_minutes)
    host, port = _master(world)
    if _keeps_store(world.rank):
        store = kept_store(port, timeout, is_open=not world.is_on_one_machine)
    else:
        store = _store_kept_by_another(host, port, timeout)
    # torchrun's store outlives a restart: without a prefix the ranks would find the addresses of
    # the dead ones in it and fail to connect.
    return PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _keeps_store(rank: int) -> bool:
    return rank == 0 and not _is_torchrun_s_store()


def _is_torchrun_s_store() -> bool:
    """Or that of our own launcher."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def kept_store(port: int, timeout: timedelta, *, is_open: bool = False) -> Any:
    """A store of this process; only this machine can reach it unless it ``is_open``.

    Args:
        port: 0 takes a free one.

    Raises:
        ConfigError: another process listens on the port, or it cannot be had.
    """
    from torch.distributed import TCPStore

    try:
        if is_open and socket.has_dualstack_ipv6():
            any_host = ("", port)
            listener = socket.create_server(any_host, family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            listener = socket.create_server(("" if is_open else LOOPBACK, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        problem = f"MASTER_PORT={port}: {reason}; choose a free one, the same for all ranks"
        raise ConfigError([problem]) from error
    # Left to itself a store listens on every interface; it takes over a socket that does not.
    return TCPStore(
        LOOPBACK,
        listener.getsockname()[1],
        None,
        True,
        timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def _store_kept_by_another(host: str, port: int, timeout: timedelta) -> Any:
    """Connect in a thread: torch waits without end where another program has the port."""
    from torch.distributed import DistError, TCPStore

    found: list[Any] = []

    def connect() -> None:
        try:
            found.append(TCPStore(host, port, None, False, timeout, wait_for_workers=False))
        except DistError as error:
            found.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not found or isinstance(found[0], DistError):
        reason = str(found[0]).partition("\n")[0] if found else "it says nothing"
        raise RankFailedError(
            f"what listens at {host}:{port} is not the store of these ranks ({reason}): choose "
            "another MASTER_PORT, the same for all ranks"
        )
    return found[0]


def _master(world: World) -> tuple[str, int]:
    """Address and port of the store."""
    host = os.environ.get("MASTER_ADDR")
    if "MASTER_PORT" in os.environ:
        port = number("MASTER_PORT")
    elif "SLURM_JOB_ID" in os.environ:
        port = port_of_job(number("SLURM_JOB_ID"))
    elif world.size == 1:
        port = 0
    else:
        raise ConfigError(["MASTER_PORT is not set: give every rank the same free port of rank 0"])
    if port > MAX_PORT or (port == 0 and world.size > 1):
        raise ConfigError([f"MASTER_PORT={port}: from 1 to {MAX_PORT}"])
    if world.is_on_one_machine:
        host = LOOPBACK
    return host or _first_slurm_host(), port


def port_of_job(job_id: int) -> int:
    """A port that the ranks of a SLURM job agree on without a word."""
    return 15000 + job_id % 15000  # below the ports of outgoing connections


def _first_slurm_host() -> str:
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if nodes is None:
        raise ConfigError(["MASTER_ADDR is not set: give every rank the host name of rank 0"])
    try:
        command = ["scontrol", "show", "hostnames", nodes]
        hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return hosts[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        problem = f"MASTER_ADDR is not set, and scontrol gives no hosts of {nodes}: {error}"
        raise ConfigError([problem]) from error
