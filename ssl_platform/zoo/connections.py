"""Connections to HTTP servers that nobody vouches for: redirects, logins, hardly a byte coming.

Followed are https to https, and http to the same host or to https.
"""

import base64
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from ssl_platform.console import without_secrets
from ssl_platform.errors import CheckpointError

TIMEOUT = 30  # seconds without a byte
PACE_SECONDS, SLOWEST = 60, 1000  # in so many seconds at least so many bytes in each
MOST_REDIRECTS = 10
REDIRECTS = (301, 302, 303, 307, 308)


def open_address(address: str, headers: dict[str, str], pace: "Pace") -> HTTPResponse:
    """Open an address, through the redirects that may be followed.

    Args:
        headers: sent to every server on the way; a login is sent to the first one alone.
        pace: watches what comes.

    Raises:
        CheckpointError: a redirect may not be followed, or there are too many.
        urllib.error.URLError: the server cannot be reached, or refuses.
    """
    opener = urllib.request.build_opener(_Http(pace), _Https(pace), _NoRedirects)
    first, place = urlsplit(address), address
    for _ in range(MOST_REDIRECTS):
        parts = urlsplit(place)
        request = urllib.request.Request(_sendable(parts), headers=headers)
        login = login_for(first, parts)
        if login is not None:
            request.add_unredirected_header("Authorization", login)
        try:
            response: HTTPResponse = opener.open(request, timeout=TIMEOUT)
            return response
        except urllib.error.HTTPError as error:
            if error.code not in REDIRECTS:
                raise
            error.close()
            target = urljoin(place, error.headers.get("Location") or "")
            require_safe(without_secrets(address), parts, urlsplit(target))
            place = target
    raise CheckpointError(
        f"{without_secrets(address)}: redirects more than {MOST_REDIRECTS} times, last to "
        f"{without_secrets(place)}"
    )


def require_safe(shown: str, here: SplitResult, there: SplitResult) -> None:
    """Raise unless a redirect may be followed."""
    target = without_secrets(there.geturl())
    if there == here:
        raise CheckpointError(f"{shown}: redirects to itself")
    if there.scheme not in ("http", "https"):
        reason = "only https and http are followed"
    elif here.scheme == "https" and there.scheme == "http":
        reason = "from https only https is followed"
    elif there.scheme == "http" and there.hostname != here.hostname:
        reason = "over http anybody on the way can say so; name that address yourself"
    else:
        return
    raise CheckpointError(f"{shown}: redirects to {target}; {reason}")


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def _sendable(parts: SplitResult) -> str:
    """An address without its login, and with what is not ASCII quoted."""
    host = parts.netloc.rpartition("@")[2].encode("idna").decode()
    path, query = (quote(part, safe="/%:=&?~#+!$,;'@()*[]") for part in (parts.path, parts.query))
    return parts._replace(netloc=host, path=path or "/", query=query, fragment="").geturl()


def login_for(first: SplitResult, place: SplitResult) -> str | None:
    """The header with the login of an address, for another place; none where it is not its own."""
    if first.username is None or _origin(first) != _origin(place):
        return None
    pair = f"{unquote(first.username)}:{unquote(first.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib's own would read all of an answer before it follows it."""

    def _left_to_the_caller(self, *_: Any, **__: Any) -> Any:
        return None

    http_error_301 = http_error_302 = http_error_303 = _left_to_the_caller
    http_error_307 = http_error_308 = _left_to_the_caller


class Pace(threading.Thread):
    """Ends connections on which next to nothing comes, headers included."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.num_bytes, self.is_too_slow = 0, False
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Pace":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        for each in self._sockets:
            each.close()

    def run(self) -> None:
        before = 0
        while not self._ended.wait(PACE_SECONDS):
            if self.num_bytes - before < SLOWEST * PACE_SECONDS:
                self.is_too_slow = True
                for each in self._sockets:
                    with suppress(OSError):  # closed meanwhile
                        each.shutdown(socket.SHUT_RDWR)
                return
            before = self.num_bytes

    def connection(self, kind: type[HTTPConnection], *args: Any, **options: Any) -> HTTPConnection:
        """A connection that is watched from its first byte on."""
        made = kind(*args, **options)

        def create(*args: Any) -> socket.socket:
            opened = socket.create_connection(*args)
            self._sockets.append(opened.dup())  # of the same connection, whatever wraps the other
            return opened

        made._create_connection = create  # type: ignore[attr-defined]
        return made


class _Http(urllib.request.HTTPHandler):
    def __init__(self, pace: Pace):
        super().__init__()
        self.pace = pace

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(self.pace.connection, HTTPConnection), request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, pace: Pace):
        super().__init__()
        self.pace = pace

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(self.pace.connection, HTTPSConnection), request)
