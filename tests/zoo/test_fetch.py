"""Fetching from a server on this machine that can misbehave in every way."""

import gzip
import hashlib
import itertools
import multiprocessing
import resource
import socket
from types import SimpleNamespace

import pytest
from zoo_server import CONTENT, OTHER, refusal

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo import catalogue, connections, transfer
from ssl_platform.zoo.fetch import cached, fetch
from ssl_platform.zoo.weights import read_weights

SHA256 = hashlib.sha256(CONTENT).hexdigest()


def in_cache(tmp_path):
    """Names of the files in the cache that are not locks."""
    files = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    return sorted(path.name for path in files if path.suffix != ".lock")


def test_a_file_is_fetched_once_and_its_digest_recorded(server, url, tmp_path):
    path = fetch(url)
    assert path.read_bytes() == CONTENT
    assert path == cached(url) and tmp_path / "cache" in path.parents
    assert in_cache(tmp_path) == ["a.pth", "a.pth.sha256"]
    assert (path.parent / "a.pth.sha256").read_text().strip() == SHA256
    assert fetch(url, SHA256) == path
    assert len(server.asked) == 1


def test_files_of_one_name_from_two_places_are_kept_apart(server):
    one, two = f"{server.url}/one/a.pth", f"{server.url}/two/a.pth?version=2"
    assert len({fetch(one), fetch(two), fetch(f"{server.url}/two/a.pth")}) == 3


@pytest.mark.parametrize("url", ["http://h/../../etc/passwd", "http://h/%2e%2e/%2Fetc/a.pth"])
def test_an_address_cannot_leave_the_cache(url, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cached(url).resolve().is_relative_to(tmp_path / "ssl_platform" / "h")


# ---- connections that break off


def test_a_cut_connection_is_taken_up_where_it_broke(server, url, tmp_path):
    server.cuts = [1000, 50_000]
    assert fetch(url, SHA256).read_bytes() == CONTENT
    assert [asked[1:] for asked in server.asked] == [
        (None, None), ("bytes=1000-", '"v1"'), ("bytes=51000-", '"v1"'),
    ]  # fmt: skip
    assert in_cache(tmp_path) == ["a.pth", "a.pth.sha256"]


@pytest.mark.parametrize(
    ("changes", "then_asked"),
    [
        ({}, ["bytes=1000-"]),
        ({"content": OTHER, "tag": '"v2"'}, ["bytes=1000-"]),  # the server sends all of it
        ({"content": OTHER, "tag": '"v2"', "ignores_if_range": True}, ["bytes=1000-", None]),
        ({"shift": 5}, ["bytes=1000-", None]),
        ({"answers": [(416, "Content-Length", "0")]}, ["bytes=1000-", None]),
    ],
    ids=["same", "changed", "another tag", "another part", "no rest"],
)
def test_a_download_that_broke_off_goes_on_if_the_file_is_the_same(
    changes, then_asked, server, url
):
    server.cuts = [1000, 0]
    assert "breaks off after 1000 bytes; what has come is kept, start it again" in refusal(url)
    assert not cached(url).exists()
    del server.asked[:]
    vars(server).update(changes)
    assert fetch(url).read_bytes() == server.content
    assert [asked[1] for asked in server.asked] == then_asked


def test_a_server_without_validators_is_never_resumed(server, url):
    server.tag, server.cuts = "", [1000]
    assert fetch(url).read_bytes() == CONTENT
    assert {asked[1] for asked in server.asked} == {None}


# ---- servers that cut, lie, or never end

NO_CHECKPOINT = "what came is no whole checkpoint ("


@pytest.mark.parametrize(
    ("faults", "limits", "told"),
    [
        ({"content": b'{"error": "?"}'}, {}, NO_CHECKPOINT + "text, not a checkpoint; it begins"),
        ({"content": b"version https://git-lfs.git"}, {}, NO_CHECKPOINT + "a pointer of Git LFS"),
        ({"content": b""}, {}, NO_CHECKPOINT + "an empty file"),
        ({"content": gzip.compress(CONTENT)}, {}, NO_CHECKPOINT + "compressed by gzip; unpack it"),
        (
            {"content": b"<!DOCTYPE html><html>please sign in</html>"},
            {},
            "a web page, not a file of weights; it may need a login; nothing is kept",
        ),
        ({"tells_length": False, "cuts": [1000]}, {}, NO_CHECKPOINT),
        ({"tells_length": False, "cuts": [len(CONTENT) - 30]}, {}, NO_CHECKPOINT),
        ({"answers": [(206, "Content-Range", "bytes 5-9/10")]}, {}, "with another part than was"),
        ({"answers": [(404, "Content-Length", "0")]}, {}, ": 404 Not Found"),
        ({"answers": [(416, "Content-Length", "0")]}, {}, ": 416 Requested Range Not Satisf"),
        (
            {"answers": [(401, "WWW-Authenticate", "Bearer")]},
            {},
            ": 401 Unauthorized; it needs a login",
        ),
        (
            {"tells_length": False},
            {"MOST_UNANNOUNCED": 100_000},
            "sends more than 100,000 bytes without saying how many will come; nothing is kept",
        ),
        (
            {},
            {"MOST_BYTES": 100_000},
            f"{len(CONTENT):,} bytes are to come, more than 100,000; fetch it yourself",
        ),
    ],
)
def test_a_server_that_sends_no_file_leaves_nothing(
    faults, limits, told, server, url, tmp_path, monkeypatch
):
    vars(server).update(faults)
    for name, value in limits.items():
        monkeypatch.setattr(transfer, name, value)
    assert told in refusal(url)
    assert in_cache(tmp_path) == []


def test_a_server_that_hardly_sends_anything_is_given_up(server, url, monkeypatch):
    monkeypatch.setattr(transfer, "monotonic", itertools.count(step=60).__next__)
    server.cuts, server.stalls = [1000], True
    assert "less than 1000 bytes a second come for 60 seconds; what has" in refusal(url)


def test_a_server_that_goes_silent_is_given_up(server, url, monkeypatch):
    monkeypatch.setattr(connections, "TIMEOUT", 0.1)
    server.cuts, server.stalls = [1000, 0], True
    assert "the connection breaks off after 1000 bytes" in refusal(url)


def test_a_server_that_never_answers(monkeypatch):
    monkeypatch.setattr(connections, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.pth"
        assert refusal(url).endswith("cannot be reached (timed out)")


def test_no_network(server, url):
    server.shutdown()
    server.server_close()
    assert "cannot be reached ([Errno 111] Connection refused)" in refusal(url)


# ---- digests


def test_a_wrong_digest_leaves_nothing(url, tmp_path):
    message = refusal(url, "0" * 64)
    assert message.endswith(
        f"what came has the sha256 {SHA256}, expected is {'0' * 64}; nothing is kept"
    )
    assert in_cache(tmp_path) == []


def test_a_file_that_changed_since_an_earlier_fetch_names_the_record(server, url):
    fetch(url).unlink()
    server.content = OTHER
    assert f"which {cached(url)}.sha256 keeps of an earlier fetch; if" in refusal(url)


def test_a_file_that_changed_in_the_cache_is_refused_ever_after(url):
    fetch(url).write_bytes(CONTENT[:-1] + b"?")
    assert f"expected is {SHA256}: it is damaged or another file; remove it" in refusal(url)


def test_a_damaged_file_in_the_cache_names_what_to_remove(url):
    path = fetch(url)
    path.write_bytes(CONTENT[:1000])  # as an older fetch may have believed it
    path.with_name("a.pth.sha256").write_text(hashlib.sha256(CONTENT[:1000]).hexdigest())
    with pytest.raises(CheckpointError) as caught:
        read_weights(url)
    told = f"{url}: {path} in the cache is truncated or damaged (File is not a zip file); remove it"
    assert str(caught.value).startswith(f"{told} and a.pth.sha256 beside it")


# ---- disks


def test_a_disk_that_is_full_half_way(server, url):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        message = refusal(url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be kept in" in message and "(File too large); set TORCH_HOME" in message
    assert fetch(url).read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=100000-"


def test_a_full_disk_is_seen_before_anything_comes(url, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert f"{len(CONTENT)} bytes are to come" in refusal(url)
    assert in_cache(tmp_path) == []


def test_a_cache_that_cannot_be_written(url, tmp_path, monkeypatch):
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "a_file"))
    message = refusal(url)
    assert "(Not a directory); set TORCH_HOME to a folder that can be written" in message


def test_names_that_no_file_system_takes_are_shortened(server):
    url = f"{server.url}/{'long' * 100}.pth?signature={'x' * 1000}"
    assert fetch(url).read_bytes() == CONTENT
    assert fetch(url) == cached(url) and len(server.asked) == 1


def test_the_cache_lies_where_torch_keeps_its_own(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    url = "https://host/folder/a.pth"
    assert str(cached(url)) == "/home/me/.cache/torch/ssl_platform/host/folder/a.pth"
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert str(cached(url)) == "/scratch/torch/ssl_platform/host/folder/a.pth"
    monkeypatch.setenv("TORCH_HOME", "~/torch")
    assert str(cached(url)) == "/home/me/torch/ssl_platform/host/folder/a.pth"


def test_a_local_file_is_used_in_place(tmp_path):
    (tmp_path / "a file.pth").write_bytes(CONTENT)
    url = (tmp_path / "a file.pth").as_uri()
    assert fetch(url, SHA256) == tmp_path / "a file.pth"
    assert "has the sha256" in refusal(url, "0" * 64)
    assert refusal((tmp_path / "none.pth").as_uri()).endswith(": no such file")


def fetch_in_process(url, results):
    results.put(str(fetch(url)))


def test_two_processes_fetch_once(server, url):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=fetch_in_process, args=(url, results)) for _ in range(2)]
    for process in processes:
        process.start()
    paths = {results.get(timeout=30) for _ in processes}
    for process in processes:
        process.join()
    assert paths == {str(cached(url))}
    assert len(server.asked) == 1


@pytest.mark.parametrize("kind", ["http", "file"])
def test_a_mirror_holds_the_files_of_the_catalogue(kind, server, tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "swav_800ep_pretrain.pth.tar").write_bytes(CONTENT)
    mirror = {"http": f"{server.url}/zoo/", "file": folder.as_uri()}[kind]
    monkeypatch.setenv(catalogue.MIRROR, mirror)
    assert catalogue.model("swav_800ep").fetch().read_bytes() == CONTENT
    wanted = {"http": ["/zoo/swav_800ep_pretrain.pth.tar"], "file": []}[kind]
    assert [asked[0] for asked in server.asked] == wanted
