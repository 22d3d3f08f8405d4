"""The store through which the ranks of a world find each other; one process keeps it."""

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
WARN_SECONDS = 5.0  # of waiting, before a warning
POLL_SECONDS = 0.1
ANSWER_SECONDS = 20.0  # for a store to answer, once it has accepted the connection
MAX_NAMED = 8
MAX_PORT = 65535


def meet(world: World, options: LaunchOptions) -> Any:
    """The store of a world that another program started, once all ranks are connected to it.

    After a few seconds of waiting a warning says which ranks are missing, and at which address.

    Raises:
        ConfigError: the environment gives no address for the store, or one that cannot be used.
        RankFailedError: after ``timeout_minutes`` a rank is still missing.
    """
    meeting = _Meeting(world, options)
    if not _keeps_store(world.rank):
        meeting.wait_for_keeper()
    store = store_of(world, options)
    store.set(f"here/{world.rank}", "")
    meeting.wait_for_all(store)
    return store


class _Meeting:
    """Waits for the other ranks, and warns of those that are missing."""

    def __init__(self, world: World, options: LaunchOptions):
        self.world, self.limit = world, options.timeout_minutes
        self.host, self.port = _address_of_store(world)
        self.start = time.monotonic()
        self.has_warned = False

    def wait_for_keeper(self) -> None:
        """Return when the process that keeps the store listens."""
        keeper = "torchrun" if _launcher_keeps_store() else f"rank 0 of {self.world.size}"
        while not self._is_reachable():
            self._wait(keeper)

    def wait_for_all(self, store: Any) -> None:
        """Return when all ranks are connected to the store."""
        keys = {rank: f"here/{rank}" for rank in range(self.world.size)}
        while not store.check(list(keys.values())):
            missing = [rank for rank, key in keys.items() if not store.check([key])]
            names = f"rank{'s' * (len(missing) > 1)} {first_few(missing, MAX_NAMED)}"
            self._wait(f"{names} of {self.world.size}", warns=self.world.rank == 0)

    def _is_reachable(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), WARN_SECONDS).close()
        except socket.gaierror as error:
            raise ConfigError(
                [f"MASTER_ADDR={self.host}: no machine of this name is found ({error.strerror})"]
            ) from error
        except OSError:
            return False
        return True

    def _wait(self, missing: str, *, warns: bool = True) -> None:
        waited = time.monotonic() - self.start
        missing = f"{missing} at {self.host}:{self.port}"
        cure = f"if nothing starts them, type: unset {self.world.variables}"
        if waited > 60 * self.limit:
            raise RankFailedError(
                f"rank {self.world.rank} has waited for {missing} for launch.timeout_minutes="
                f"{self.limit}; {cure}"
            )
        if waited > WARN_SECONDS and warns and not self.has_warned:
            logger.warning("rank %d waits for %s; %s", self.world.rank, missing, cure)
            self.has_warned = True
        time.sleep(POLL_SECONDS)


def store_of(world: World, options: LaunchOptions) -> Any:
    """The store of this attempt: a restart has another, without the addresses of dead ranks."""
    from torch.distributed import PrefixStore

    timeout = timedelta(minutes=options.timeout_minutes)
    host, port = _address_of_store(world)
    if _keeps_store(world.rank):
        store = kept_store(port, timeout, is_open=not world.is_on_one_machine)
    else:
        store = _store_kept_by_another(host, port, timeout)
    # torchrun's store outlives a restart, with the addresses of ranks that are dead
    return PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _keeps_store(rank: int) -> bool:
    return rank == 0 and not _launcher_keeps_store()


def _launcher_keeps_store() -> bool:
    """Whether it is torchrun's, or that of our own launcher."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def kept_store(port: int, timeout: timedelta, *, is_open: bool = False) -> Any:
    """A store that this process keeps; other machines can reach it only if it ``is_open``.

    Args:
        port: 0 takes a free one.

    Raises:
        ConfigError: the port cannot be used, as where another process listens on it.
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
    # A store that opens its own socket listens on every interface.
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
    """Connect in a thread: where another program has the port, torch waits for ever."""
    from torch.distributed import DistError, TCPStore

    outcome: list[Any] = []

    def connect() -> None:
        try:
            outcome.append(TCPStore(host, port, None, False, timeout, wait_for_workers=False))
        except DistError as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not outcome or isinstance(outcome[0], DistError):
        reason = str(outcome[0]).partition("\n")[0] if outcome else "it says nothing"
        raise RankFailedError(
            f"what listens at {host}:{port} is not the store of these ranks ({reason}): choose "
            "another MASTER_PORT, the same for all ranks"
        )
    return outcome[0]


def _address_of_store(world: World) -> tuple[str, int]:
    """Its host and port."""
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
    """The port of a SLURM job's store, which each of its ranks computes."""
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
