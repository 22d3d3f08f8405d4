"""Fetching from a server on this machine that can misbehave in every way."""

import hashlib
import multiprocessing
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo import catalogue
from ssl_platform.zoo.fetch import cached, fetch

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; ``server`` holds its faults and what was asked."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if self.path.endswith("missing.pth"):
            self.send_error(404)
            return
        content, start = server.content, 0
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == server.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {start + server.shift}-{len(content) - 1}/{len(content)}"
            )
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(catalogue.MIRROR, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # closing it waits for them
    server.content, server.tag, server.cuts, server.asked = CONTENT, '"v1"', [], []
    server.shift = 0  # of the range that is told
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def in_cache(tmp_path):
    """Names of the files in the cache that are not locks."""
    files = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    return sorted(path.name for path in files if path.suffix != ".lock")


def refusal(url, *args, **options):
    with pytest.raises(CheckpointError) as caught:
        fetch(url, *args, **options)
    assert str(caught.value).startswith(f"{url}: ") and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_fetched_once_and_its_digest_recorded(server, tmp_path):
    url = f"{server.url}/models/a.pth"
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


def test_a_cut_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.cuts = [1000, 50_000]
    assert fetch(f"{server.url}/a.pth", SHA256).read_bytes() == CONTENT
    assert [asked[1:] for asked in server.asked] == [
        (None, None), ("bytes=1000-", '"v1"'), ("bytes=51000-", '"v1"'),
    ]  # fmt: skip
    assert in_cache(tmp_path) == ["a.pth", "a.pth.sha256"]


def test_a_server_that_sends_nothing_more_is_given_up_and_resumed_later(server, tmp_path):
    server.cuts = [1000, 0]
    url = f"{server.url}/a.pth"
    assert "breaks off after 1000 bytes" in refusal(url)
    assert not cached(url).exists()
    assert fetch(url).read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=1000-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(server):
    server.cuts = [1000, 0]
    url = f"{server.url}/a.pth"
    refusal(url)
    server.content, server.tag = CONTENT[::-1], '"v2"'
    assert fetch(url).read_bytes() == CONTENT[::-1]


def test_a_server_without_validators_is_never_resumed(server):
    server.tag, server.cuts = "", [1000]
    assert fetch(f"{server.url}/a.pth").read_bytes() == CONTENT
    assert {asked[1] for asked in server.asked} == {None}


def test_another_part_than_was_asked_for(server):
    server.cuts, server.shift = [1000], 5
    assert "answers with another part than was asked for" in refusal(f"{server.url}/a.pth")
    assert fetch(f"{server.url}/a.pth").read_bytes() == CONTENT


def test_a_file_that_changed_since_an_earlier_fetch_names_the_record(server):
    url = f"{server.url}/a.pth"
    fetch(url).unlink()
    server.content = CONTENT[::-1]
    assert f"which {cached(url)}.sha256 keeps of an earlier fetch; nothing is kept" in refusal(url)


def test_a_whole_part_that_was_not_yet_named(server):
    url = f"{server.url}/a.pth"
    server.cuts = [1000, 0]
    refusal(url)
    partial = cached(url).with_name("a.pth.partial")
    partial.write_bytes(CONTENT)
    assert fetch(url).read_bytes() == CONTENT


def test_a_wrong_digest_leaves_nothing(server, tmp_path):
    message = refusal(f"{server.url}/a.pth", "0" * 64)
    assert message.endswith(
        f"what came has the sha256 {SHA256}, expected is {'0' * 64}; nothing is kept"
    )
    assert "a.pth" not in in_cache(tmp_path) and "a.pth.partial" not in in_cache(tmp_path)


def test_a_file_that_changed_in_the_cache_is_refused_ever_after(server):
    url = f"{server.url}/a.pth"
    fetch(url).write_bytes(CONTENT[:-1] + b"?")
    assert f"expected is {SHA256}: it is damaged or another file; remove it" in refusal(url)


def test_a_web_page_is_no_file_of_weights(server, tmp_path):
    server.content = b"<!DOCTYPE html><html>please sign in</html>"
    assert "a web page, not a file of weights; nothing is kept" in refusal(f"{server.url}/a.pth")
    assert "a.pth" not in in_cache(tmp_path)


def test_404(server, tmp_path):
    assert refusal(f"{server.url}/missing.pth").endswith(": 404 Not Found")
    assert in_cache(tmp_path) == []


def test_no_network(server):
    server.shutdown()
    server.server_close()
    assert "cannot be reached ([Errno 111] Connection refused)" in refusal(f"{server.url}/a.pth")


def test_an_unknown_scheme(tmp_path):
    assert "cannot fetch from ftp://; https, http or file" in refusal("ftp://host/a.pth")


def test_a_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "a_file"))
    message = refusal(f"{server.url}/a.pth")
    assert "(Not a directory); set TORCH_HOME to a folder that can be written" in message


def test_a_read_only_cache(server, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    if os.access(tmp_path / "cache", os.W_OK):
        pytest.skip("this user may write anywhere")
    assert "(Permission denied); set TORCH_HOME" in refusal(f"{server.url}/a.pth")


def test_a_full_disk_is_seen_before_anything_comes(server, tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    assert "256000 bytes are to come" in refusal(f"{server.url}/a.pth")
    assert in_cache(tmp_path) == []


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


def test_two_processes_fetch_once(server):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    url = f"{server.url}/a.pth"
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
