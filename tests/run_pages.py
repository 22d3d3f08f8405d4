"""Pages of runs as tests read them."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """The text of each part of a page by its id, all attributes, and what its script is given."""

    NO_END = ("meta", "link", "img", "br")

    def __init__(self, path: Path):
        super().__init__()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert not self._open
        self.data: dict[str, Any] = json.loads(self.texts["data"])

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.NO_END:
            self._open.append((tag, dict(attrs).get("id") or ""))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, name in self._open:
            self.texts[name] = self.texts.get(name, "") + data

    def part(self, name: str) -> str:
        """The text of a section, its spaces as a browser shows them."""
        return " ".join(self.texts[name].split())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """The attributes of the elements of a kind, of those with a word in an attribute."""
        found = [attrs for name, attrs in self.attributes if name == tag]
        return [a for a in found if all(w in (a.get(k) or "").split() for k, w in wanted.items())]

    @property
    def charts(self) -> dict[str, dict[str, list[float | None]]]:
        """Values of each series by the title of its chart."""
        return {
            chart["title"]: {one["name"]: one["values"] for one in chart["series"]}
            for chart in self.data["charts"]
        }
