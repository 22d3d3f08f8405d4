"""Fetching from a server on this machine that can misbehave in every way."""

import base64
import hashlib
import io
import multiprocessing
import os
import re
import resource
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import torch

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo import catalogue, connections, transfer
from ssl_platform.zoo.fetch import cached, fetch
from ssl_platform.zoo.weights import read_weights


def checkpoint_bytes(value: float) -> bytes:
    buffer = io.BytesIO()
    torch.save({"conv1.weight": torch.full((64_000,), value)}, buffer)
    return buffer.getvalue()


CONTENT, OTHER = checkpoint_bytes(1.0), checkpoint_bytes(2.0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves a file with ranges; ``server`` holds its faults and what was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        server.logins.append(self.headers.get("Authorization"))
        self.close_connection = True
        if server.answers:
            status, name, value = server.answers.pop(0)
            self.send_response(status)
            self.send_header(name, value)
            self.end_headers()
            return
        if self.path.endswith("missing.pth"):
            self.send_error(404)
            return
        self._send_file()

    def _send_file(self):
        server, start = self.server, 0
        content, wanted = server.content, self.headers.get("Range")
        if wanted and (self.headers.get("If-Range") == server.tag or server.ignores_if_range):
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
        if server.tells_length:
            self.send_header("Content-Length", str(len(content) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start:end])
        self.wfile.flush()
        if server.stalls:
            self.rfile.read(1)  # until the other side has had enough

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
    server.answers, server.logins, server.headers = [], [], {}
    server.tells_length, server.ignores_if_range, server.stalls = True, False, False
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
    server.content, server.tag = OTHER, '"v2"'
    assert fetch(url).read_bytes() == OTHER


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
    server.content = OTHER
    assert f"which {cached(url)}.sha256 keeps of an earlier fetch; if" in refusal(url)


def test_a_whole_part_that_was_not_yet_named(server):
    url = f"{server.url}/a.pth"
    server.cuts = [1000, 0]
    refusal(url)
    partial = cached(url).with_name("a.pth.partial")
    partial.write_bytes(CONTENT)
    assert fetch(url).read_bytes() == CONTENT


# ---- servers that cut, lie, or never end


@pytest.mark.parametrize("kept", [1000, len(CONTENT) - 30, len(CONTENT) // 2])
def test_a_file_cut_by_a_server_that_tells_no_length_is_not_believed(kept, server, tmp_path):
    url, server.tells_length, server.cuts = f"{server.url}/a.pth", False, [kept]
    assert "what came is no whole checkpoint (" in refusal(url)
    assert in_cache(tmp_path) == []
    assert fetch(url).read_bytes() == CONTENT


def test_a_part_of_a_file_with_another_tag_is_not_joined_on(server):
    url, server.cuts, server.ignores_if_range = f"{server.url}/a.pth", [1000, 0], True
    refusal(url)
    server.content, server.tag = OTHER, '"v2"'
    assert fetch(url).read_bytes() == OTHER
    assert [asked[1] for asked in server.asked[-2:]] == ["bytes=1000-", None]


def test_a_part_that_nobody_asked_for(server, tmp_path):
    server.answers = [(206, "Content-Range", "bytes 5-9/10")]
    assert "another part than was asked for" in refusal(f"{server.url}/a.pth")
    assert in_cache(tmp_path) == []


def test_a_server_without_any_range_is_asked_twice_and_no_more(server):
    server.cuts = [1000, 0]
    url = f"{server.url}/a.pth"
    refusal(url)
    server.answers = [(416, "Content-Length", "0")] * 9
    assert refusal(url).endswith(": 416 Requested Range Not Satisfiable")
    assert len(server.answers) == 7


def test_an_encoding_that_was_not_asked_for(server, tmp_path):
    server.headers = {"Content-Encoding": "gzip"}
    assert "in the encoding gzip, which was not asked for" in refusal(f"{server.url}/a.pth")
    assert in_cache(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"error": "not found"}', """text, not a checkpoint; it begins with '{"error"""),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"", "an empty file"),
    ],
)
def test_what_is_no_checkpoint_is_not_kept(content, told, server, tmp_path):
    server.content = content
    assert f"what came is no whole checkpoint ({told}" in refusal(f"{server.url}/a.pth")
    assert in_cache(tmp_path) == []


def test_a_server_that_never_ends(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MOST_UNANNOUNCED", 100_000)
    server.tells_length = False
    assert "sends more than 100,000 bytes without saying how" in refusal(f"{server.url}/a.pth")
    assert in_cache(tmp_path) == []


def test_a_server_that_announces_too_much(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MOST_BYTES", 100_000)
    told = f"{len(CONTENT):,} bytes are to come, more than 100,000"
    assert told in refusal(f"{server.url}/a.pth")
    assert in_cache(tmp_path) == []


@pytest.mark.parametrize("cuts", [[0], [1000]], ids=["nothing", "a little"])
def test_a_server_that_is_silent_or_trickles_is_given_up(cuts, server, monkeypatch):
    monkeypatch.setattr(connections, "PACE_SECONDS", 0.1)
    server.cuts, server.stalls = cuts, True
    assert "less than 1000 bytes a second come for 60 seconds" in refusal(f"{server.url}/a.pth")


def test_a_server_whose_headers_never_end(monkeypatch):
    monkeypatch.setattr(connections, "PACE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.pth"
        assert refusal(url).endswith("cannot be reached (no answer in 60 seconds)")


def test_a_disk_that_is_full_half_way(server, tmp_path):
    url, limits = f"{server.url}/a.pth", resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        message = refusal(url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be kept in" in message and "(File too large); set TORCH_HOME" in message
    assert fetch(url).read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=100000-"


def test_a_damaged_file_in_the_cache_names_what_to_remove(server):
    url = f"{server.url}/a.pth"
    path = fetch(url)
    path.write_bytes(CONTENT[:1000])  # as an older fetch may have believed it
    path.with_name("a.pth.sha256").write_text(hashlib.sha256(CONTENT[:1000]).hexdigest())
    with pytest.raises(CheckpointError) as caught:
        read_weights(url)
    told = f"{url}: {path} in the cache is truncated or damaged (File is not a zip file); remove it"
    assert str(caught.value).startswith(f"{told} and a.pth.sha256 beside it")


# ---- redirects and logins


def moved(*targets):
    return [(302, "Location", target) for target in targets]


@pytest.mark.parametrize("target", ["ftp://h/a.pth", "file:///etc/passwd", "data:,x", "gopher://h"])
def test_a_redirect_to_another_scheme_is_not_followed(target, server):
    server.answers = moved(target)
    told = f"redirects to {target}; only https and http are followed"
    assert told in refusal(f"{server.url}/a.pth")


def test_a_redirect_to_another_host_over_http_is_not_followed(server):
    server.answers = moved(f"http://localhost:{server.server_port}/b.pth")
    assert "over http anybody on the way can say so" in refusal(f"{server.url}/a.pth")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        ("https://h/a", "http://h/a", "from https only https is followed"),
        ("https://h/a", "http://other/a", "from https only https is followed"),
        ("https://h/a", "https://other/b", None),
        ("http://h/a", "https://other/b", None),
        ("http://h/a", "http://h:8000/b", None),
    ],
)
def test_https_stays_https(here, there, told):
    try:
        connections.require_safe(here, urlsplit(here), urlsplit(there))
    except CheckpointError as error:
        assert told is not None and str(error) == f"{here}: redirects to {there}; {told}"
    else:
        assert told is None


@pytest.mark.parametrize("places", [["/a.pth"], ["/b.pth", "/a.pth"] * 6], ids=["itself", "two"])
def test_redirects_in_a_circle_are_one_line(places, server):
    server.answers = moved(*places)
    assert re.search(r"redirects (to itself|more than 10 times)", refusal(f"{server.url}/a.pth"))


@pytest.mark.parametrize("place", ["", "http://[", "http://h:x/a", "//", "http://h/\xe4"])
def test_a_redirect_to_nowhere(place, server):
    server.answers = moved(place)
    assert server.url in refusal(f"{server.url}/a.pth")


def test_a_redirect_on_the_same_host_is_followed(server):
    server.answers = moved("/b.pth?c=d")
    assert fetch(f"{server.url}/a.pth").read_bytes() == CONTENT
    assert [asked[0] for asked in server.asked] == ["/a.pth", "/b.pth?c=d"]


def test_a_login_goes_to_its_own_host_alone_and_is_never_shown(server, tmp_path):
    other = server.url.replace("http://", "http://me:hunter2@")
    server.answers = moved("/b.pth")
    path = fetch(f"{other}/a.pth")
    assert path == cached(f"{server.url}/a.pth")
    basic = "Basic " + base64.b64encode(b"me:hunter2").decode()
    assert server.logins == [basic, basic]
    with pytest.raises(CheckpointError) as caught:
        fetch(f"{other}/missing.pth")
    assert (
        str(caught.value) == f"http://*****@127.0.0.1:{server.server_port}/missing.pth: {MISSING}"
    )
    for address in (other, f"{server.url}/a.pth?token=hunter2"):
        assert "hunter2" not in str(cached(address))


MISSING = "404 Not Found"


def test_another_host_or_scheme_gets_no_login():
    first = urlsplit("https://me:pw@h/a")
    for place in ("https://h:8443/a", "https://other/a", "http://h/a"):
        assert connections.login_for(first, urlsplit(place)) is None
    assert connections.login_for(first, urlsplit("https://h/b")) is not None


@pytest.mark.parametrize(
    "url",
    ["http://", "https://h", "https://h/", "http://[::1/a", "http://h:port/a", "http:///a",
     "http://h/a b", "http://h/\x00", "https:a", "file://other/a", "file:///\x00", "x://h/a"],
)  # fmt: skip
def test_what_is_no_address_of_a_file(url):
    assert refusal(url)


def test_names_that_no_file_system_takes_are_shortened(server):
    url = f"{server.url}/{'long' * 100}.pth?signature={'x' * 1000}"
    assert fetch(url).read_bytes() == CONTENT
    assert fetch(url) == cached(url) and len(server.asked) == 1


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
    assert "a web page, not a file of weights; it may need a login; nothing is kept" in refusal(
        f"{server.url}/a.pth"
    )
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
    assert f"{len(CONTENT)} bytes are to come" in refusal(f"{server.url}/a.pth")
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
