"""Text from outside, made fit to be shown: on a terminal, in a log.

Whoever names a key, a file or an address also names what is printed of it. So all messages pass
here: nothing in them moves the cursor, goes on for pages, or shows a password.
"""

import logging
import re

# from the beginning of a word on, so that a long one is looked through once
SECRET = r"(?<![\w.-])[\w.-]*(?:token|secret|passw|api_?key|signature|credential)[\w-]*"
STRUCK_OUT = "*****"
LONGEST_WORD = 400  # letters without a space: the longest paths are shorter
LONGEST_LINE = 4000
MOST_LINES = 100

# up to the last @, for a password that was not quoted may hold one, and slashes
_IN_ADDRESS = re.compile(r"(\w://)(?:[^\s/?#]*@|[^\s/?#:]*:\S*@)")
_ASSIGNED = re.compile(rf"((?:{SECRET})=+)(?!=)(\"[^\"]*\"|'[^']*'|[^\s&,'\"\]}}]+)", re.IGNORECASE)


def legible(text: str) -> str:
    """Lines as they may be shown: escaped, without secrets, cut where they go on for ever.

    Control characters, those that change the direction of writing, and bytes that are no text are
    written as Python writes them (``\\x1b``); line breaks stay.
    """
    lines = text.split("\n")
    shown = [_cut(escaped(without_secrets(line))) for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES:
        shown.append(f"... ({len(lines) - MOST_LINES} more lines)")
    return "\n".join(shown)


def one_line(text: str) -> str:
    """As `legible`, a line break as its escape."""
    return legible(text.replace("\n", "\\n"))


def escaped(text: str) -> str:
    """What does not print, as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_secrets(text: str) -> str:
    """Passwords in addresses and values of keys that are called secret, struck out."""
    text = _IN_ADDRESS.sub(rf"\1{STRUCK_OUT}@", text)
    return _ASSIGNED.sub(rf"\1{STRUCK_OUT}", text)


def _cut(line: str) -> str:
    if len(line) <= LONGEST_WORD:
        return line
    words = (_shortened(word, LONGEST_WORD) for word in line.split(" "))
    return _shortened(" ".join(words), LONGEST_LINE)


def _shortened(text: str, length: int) -> str:
    """The beginning and the end: there is what it is about, and what to do."""
    if len(text) <= length:
        return text
    return f"{text[: length // 2]}...({len(text)} letters)...{text[-length // 4 :]}"


class LegibleFormatter(logging.Formatter):
    """Log records as they may be shown."""

    def format(self, record: logging.LogRecord) -> str:
        return legible(super().format(record))


def make_logs_legible() -> None:
    """Those of a process that has set up no logging, which Python prints by itself."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LegibleFormatter())
