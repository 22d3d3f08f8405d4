"""Connections to HTTP servers: which redirects are followed, and who is sent a login."""

import string
from concurrent.futures import Future, wait
from http.client import HTTPMessage, HTTPResponse
from threading import Thread
from typing import IO, Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPPasswordMgrWithPriorAuth,
    HTTPRedirectHandler,
    OpenerDirector,
    Request,
    build_opener,
)

from ssl_platform.console import without_secrets
from ssl_platform.errors import CheckpointError

TIMEOUT = 30  # seconds without a byte
OPEN_SECONDS = 120  # until a server has sent all headers, those of redirects too


def open_address(address: str, headers: dict[str, str]) -> HTTPResponse:
    """Open an address, through the redirects that may be followed.

    Args:
        address: ``http://`` or ``https://``; a login in it is sent to its host and port alone.
        headers: sent to every server on the way.

    Raises:
        CheckpointError: a redirect may not be followed, or the headers do not come to an end.
        urllib.error.URLError: the server cannot be reached, or refuses.
    """
    request = Request(_sendable(urlsplit(address)), headers=headers)
    opener, answer = opener_for(address), Future[HTTPResponse]()

    def ask() -> None:
        try:
            answer.set_result(opener.open(request, timeout=TIMEOUT))
        except BaseException as error:
            answer.set_exception(error)

    # a thread that nobody waits for: a server may send its headers byte by byte for days
    Thread(target=ask, daemon=True).start()
    if not wait([answer], OPEN_SECONDS).done:
        raise CheckpointError(f"sends no whole answer within {OPEN_SECONDS} seconds")
    return answer.result()


def opener_for(address: str) -> OpenerDirector:
    """An opener that follows safe redirects and knows the login in an address."""
    parts, logins = urlsplit(address), HTTPPasswordMgrWithPriorAuth()
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        site = parts._replace(netloc=_host(parts), path="/", query="", fragment="").geturl()
        logins.add_password(None, site, user, password, is_authenticated=True)
    return build_opener(_SafeRedirects, _Logins(logins))


def require_safe(here: SplitResult, there: SplitResult) -> None:
    """Raise `CheckpointError` unless a redirect may be followed."""
    if there == here:
        raise CheckpointError("redirects to itself")
    if there.scheme not in ("http", "https"):
        reason = "only https and http are followed"
    elif here.scheme == "https" and there.scheme == "http":
        reason = "from https only https is followed"
    elif there.scheme == "http" and there.hostname != here.hostname:
        reason = "over http anybody on the way can say so; name that address yourself"
    else:
        return
    raise CheckpointError(f"redirects to {without_secrets(there.geturl())}; {reason}")


class _Logins(HTTPBasicAuthHandler):
    def http_error_401(self, *_: Any) -> None:
        """Take the answer as it is: a login has been sent, and there is no other."""


class _SafeRedirects(HTTPRedirectHandler):
    inf_msg = "redirects in a circle, or more than 10 times; "

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> Any:
        fp.close()  # unread: it may be endless
        there = urlsplit(urljoin(req.full_url, headers.get("Location", "")))
        require_safe(urlsplit(req.full_url), there)
        del headers["Location"]
        headers["Location"] = there._replace(netloc=_host(there)).geturl()
        # 302 for all of them: a GET knows no difference, and Python 3.10 knows no 308
        return super().http_error_302(req, fp, 302, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _sendable(parts: SplitResult) -> str:
    """An address without its login, and with what is not ASCII quoted."""
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    return parts._replace(netloc=_host(parts), path=path, query=query, fragment="").geturl()


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2].encode("idna").decode()
