"""Which addresses are asked: those that are files, safe redirects, and the owner of a login."""

import base64
import socket
from contextlib import suppress
from threading import Event, Thread
from urllib.parse import urlsplit
from urllib.request import HTTPBasicAuthHandler, Request

import pytest
from zoo_server import CONTENT, refusal

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo import connections
from ssl_platform.zoo.fetch import cached, fetch


def moved(*targets):
    return [(302, "Location", target) for target in targets]


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (["ftp://h/a.pth"], "redirects to ftp://h/a.pth; only https and http are followed"),
        (["file:///etc/passwd"], "redirects to file:///etc/passwd; only https and http are"),
        (["data:,x"], "redirects to data:,x; only https and http are followed"),
        (["http://localhost/b.pth"], "over http anybody on the way can say so"),
        (["/a.pth"], "redirects to itself"),
        ([""], "redirects to itself"),
        (["/b.pth", "/a.pth"] * 6, "302 redirects in a circle, or more than 10 times; Found"),
        ([f"/{number}.pth" for number in range(12)], "in a circle, or more than 10 times; Found"),
        (["http://["], "cannot be reached (Invalid IPv6 URL)"),
        (["http://h:x/a"], "; name that address yourself"),
        (["//"], "redirects to itself"),
        (["http://h/\xe4"], "; name that address yourself"),
    ],
)
def test_a_redirect_that_is_not_followed(places, told, server, url):
    server.answers = moved(*places)
    assert told in refusal(url)


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
        connections.require_safe(urlsplit(here), urlsplit(there))
    except CheckpointError as error:
        assert told is not None and str(error) == f"redirects to {there}; {told}"
    else:
        assert told is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_same_host_is_followed(status, server, url):
    server.answers = [(status, "Location", "/b c\xc3\xa4.pth?c=d#e")]  # UTF-8
    assert fetch(url).read_bytes() == CONTENT
    assert [asked[0] for asked in server.asked] == ["/a.pth", "/b%20c%C3%A4.pth?c=d"]


def test_a_login_goes_to_its_own_host_alone_and_is_never_shown(server, url):
    other = url.replace("http://", "http://me:hunter%202@")
    server.answers = moved(url.replace("//", "//you:there@").replace("a.pth", "b.pth"))
    assert fetch(other) == cached(url)
    basic = "Basic " + base64.b64encode(b"me:hunter 2").decode()
    assert server.logins == [basic, basic]
    server.answers = [(401, "WWW-Authenticate", 'Digest realm="x"')]
    with pytest.raises(CheckpointError) as caught:
        fetch(other.replace("a.pth", "b.pth"))
    shown = url.replace("//", "//*****@").replace("a.pth", "b.pth")
    assert str(caught.value) == f"{shown}: 401 Unauthorized; it needs a login"
    for address in (other, f"{url}?token=hunter%202"):
        assert "hunter" not in str(cached(address))


def test_another_host_or_port_gets_no_login():
    handlers = connections.opener_for("https://me:pw@h/a").handlers
    (logins,) = (each for each in handlers if isinstance(each, HTTPBasicAuthHandler))
    places = ("https://h:8443/a", "https://other/a", "https://h/b")
    requests = [logins.https_request(Request(place)) for place in places]
    assert [each.has_header("Authorization") for each in requests] == [False, False, True]


def test_the_proxy_of_the_environment_is_asked(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    assert fetch("http://host.invalid/a.pth").read_bytes() == CONTENT
    assert server.asked[0][0] == "http://host.invalid/a.pth"


@pytest.mark.parametrize(
    "url",
    ["http://", "https://h", "https://h/", "http://[::1/a", "http://h:port/a", "http:///a",
     "http://h/a b", "http://h/\x00", "https:a", "file://other/a", "file:///\x00", "x://h/a"],
)  # fmt: skip
def test_what_is_no_address_of_a_file(url):
    told = "cannot fetch from x://; https, http or file" if url.startswith("x") else ""
    assert told in refusal(url)


def test_headers_that_never_end_are_given_up(monkeypatch):
    monkeypatch.setattr(connections, "OPEN_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.pth"

        def drip():
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the client leaves with the test
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Header: ")
                given_up.wait()

        given_up = Event()
        server = Thread(target=drip)
        server.start()
        told = refusal(address)
        given_up.set()
        server.join()
    assert told.endswith("sends no whole answer within 0.2 seconds")
