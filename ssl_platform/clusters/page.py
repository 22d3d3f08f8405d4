"""A page that shows the clusters: what they look like, how large and how pure they are."""

import os
from html import escape
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from ssl_platform.clusters.files import Clusters, labels_of
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.decoding.decode import printable
from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.files import replacing
from ssl_platform.ops.partitions import majority_classes

FEW = 40  # empty clusters whose ids are shown without being asked for


def write_overview(
    folder: Path, dataset: ImageDataset, clusters: Clusters, found: dict[str, Any], *, title: str
) -> None:
    """Write ``index.html``, with what ``write_sheets`` of all ranks has put into ``folder``.

    It loads nothing but the sheets, by relative links and as they are scrolled to. Links lead to
    those of the tables, ``by_cluster`` and ``summary.json`` that are there.

    Args:
        found: what ``summarize`` found.
        title: heading of the page, plain text.
    """
    labels, class_names = labels_of(dataset), _class_names(dataset)
    with (
        replacing(folder / "index.html") as partial,
        open(partial, "w", encoding="utf-8") as page,
    ):
        page.write(_HEAD + f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n")
        page.write(f"<body>\n<header>\n<h1>{escape(title)}</h1>\n<p>{_describe(found)}</p>\n")
        page.write(_links(folder, len(clusters.num_clusters)))
        page.write(f"{_explanation(found)}</header>\n")
        for number in range(len(clusters.num_clusters)):
            _write_set(page, folder, clusters, number, found["sets"][number], labels, class_names)
        page.write(f"<script>{_SCRIPT}</script>\n</body>\n</html>\n")


def _class_names(dataset: ImageDataset) -> dict[int, str]:
    """Names of classes that are folders."""
    if not isinstance(dataset, ImageFolder) or dataset.labels is None:
        return {}
    labels, firsts = np.unique(dataset.labels, return_index=True)
    root = os.path.join(os.fsencode(dataset.path), b"")
    return {
        label: printable(dataset.files[first].removeprefix(root).split(b"/")[0])
        for label, first in zip(labels.tolist(), firsts.tolist(), strict=True)
    }


def _describe(found: dict[str, Any]) -> str:
    images = _count(found["images"], "image")
    sentences = [f"{images}, each in the cluster of its nearest prototype."]
    if found["unreadable"]:
        sentences.append(f"{_count(found['unreadable'], 'image')} could not be read.")
    if "seen" in found:
        sentences.append(f"The model was trained on {found['seen']:,} of them.")
    if "labelled" in found and found["labelled"] < found["images"]:
        sentences.append(f"{found['labelled']:,} of them have a label.")
    return " ".join(sentences)


def _explanation(found: dict[str, Any]) -> str:
    shown = {name for of_set in found["sets"] for name in _figures(of_set)}
    items = [f"<dt>{k}</dt><dd>{v}</dd>" for k, v in _MEANINGS.items() if k in shown]
    return (
        f"<details><summary>What the figures mean</summary>\n<dl>{''.join(items)}</dl></details>\n"
    )


def _links(folder: Path, num_sets: int) -> str:
    """To the sets, and to what else lies in the folder."""
    sets = [(f"#set-{n}", f"Prototypes {n}") for n in range(num_sets)] if num_sets > 1 else []
    names = ("clusters.csv", "clusters.parquet", "by_cluster", "summary.json")
    files = [(name, name) for name in names if (folder / name).exists()]
    links = [f'<a href="{target}">{text}</a>' for target, text in [*sets, *files]]
    return f"<nav>{' '.join(links)}</nav>\n"


def _write_set(
    page: TextIO,
    folder: Path,
    clusters: Clusters,
    number: int,
    found: dict[str, Any],
    labels: np.ndarray | None,
    class_names: dict[int, str],
) -> None:
    ids, sizes = clusters.ids[:, number], clusters.sizes(number)
    assigned = ids >= 0
    totals = np.bincount(ids[assigned], clusters.scores[assigned, number], len(sizes))
    unlabelled = np.full_like(ids, -1)
    majority, shares = majority_classes(ids, unlabelled if labels is None else labels, len(sizes))
    page.write(f'<section id="set-{number}">\n<h2>Prototypes {number}</h2>\n')
    items = [f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in _figures(found).items()]
    page.write(f'<dl class="figures">{"".join(items)}</dl>\n')
    page.write(_empty_clusters(np.flatnonzero(sizes == 0).tolist()))
    by_class = "" if labels is None else _SORT_BY_CLASS
    page.write(_SORT.format(number=number, by_class=by_class))
    page.write(f'<div class="clusters" id="clusters-{number}">\n')
    for cluster in np.argsort(-sizes, kind="stable")[: found["used"]].tolist():
        size, score, share = sizes[cluster], totals[cluster] / sizes[cluster], shares[cluster]
        facts = [f"{_count(size, 'image')} &middot; mean cosine {score:.3f}"]
        if majority[cluster] >= 0:
            class_name = class_names.get(majority[cluster], f"class {majority[cluster]}")
            facts.append(f"{share:.0%} {escape(class_name)}")
        page.write(
            f'<article id="set-{number}-cluster-{cluster}" data-id="{cluster}" data-size="{size}" '
            f'data-score="{score:.6f}" data-share="{np.nan_to_num(share):.6f}">'
            f"{_heading(folder, clusters.name(number, cluster), cluster)}"
            f"<p>{'<br>'.join(facts)}</p>"
            f"{_picture(folder, clusters.name(number, cluster), cluster)}</article>\n"
        )
    page.write("</div>\n</section>\n")


def _figures(found: dict[str, Any]) -> dict[str, str]:
    """What there is to say of a set as a whole."""
    median = f"{found['size_median']:,.1f}".removesuffix(".0")
    figures = {
        "Images": f"{found['images']:,}",
        "Clusters in use": f"{found['used']:,} of {found['clusters']:,}",
        "Size: min / median / max": f"{found['size_min']:,} / {median} / {found['size_max']:,}",
        "Entropy of sizes / ln K": f"{found['size_entropy']:.3f}",
        "Mean cosine": f"{found['mean_score']:.3f}",
    }
    if "training_agreement" in found:
        figures["Same as in training"] = f"{found['training_agreement']:.1%}"
    if "nmi" in found:
        figures["NMI"], figures["ARI"] = f"{found['nmi']:.3f}", f"{found['ari']:.3f}"
        figures["Purity"] = f"{found['purity']:.1%}"
        figures["Hungarian accuracy"] = f"{found['hungarian_accuracy']:.1%}"
    return figures


def _empty_clusters(empty: list[int]) -> str:
    if not empty:
        return ""
    state = "" if len(empty) > FEW else " open"
    listed = ", ".join(map(str, empty))
    return (
        f"<details{state}><summary>{_count(len(empty), 'empty cluster')}</summary>"
        f"<p>{listed}</p></details>\n"
    )


def _heading(folder: Path, name: str, cluster: int) -> str:
    text = f"Cluster {cluster}"
    if (folder / "by_cluster" / name).exists():
        text = f'<a href="by_cluster/{name}/">{text}</a>'
    return f"<h3>{text}</h3>"


def _picture(folder: Path, name: str, cluster: int) -> str:
    sheet = f"sheets/{name}.jpg"
    try:
        with Image.open(folder / sheet) as image:
            width, height = image.size  # keeps the page from jumping when the picture comes
    except FileNotFoundError:
        return ""
    return (
        f'<a href="{sheet}"><img src="{sheet}" width="{width}" height="{height}" loading="lazy" '
        f'alt="The images nearest to prototype {cluster}"></a>'
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
"""

_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #fafafa; --card: #fff; --line: #e4e4e7; --text: #18181b; --quiet: #62626b;
  --link: #1d4ed8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #111113; --card: #1b1b1f; --line: #303036; --text: #ececf0; --quiet: #a1a1aa;
    --link: #93b4ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 110rem; padding: 1.5rem clamp(1rem, 3vw, 3rem) 4rem;
  background: var(--ground); color: var(--text); font: 1rem/1.5 system-ui, sans-serif;
}
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; padding-top: 1.5rem; border-top: 1px solid var(--line); }
h3 { margin: 0; font-size: 1rem; }
p { margin: .4rem 0; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0; }
details { margin: .75rem 0; color: var(--quiet); max-width: 75rem; overflow-wrap: anywhere; }
summary { cursor: pointer; }
header dl { margin: .5rem 0; }
header dt { font-weight: 600; color: var(--text); }
header dd { margin: 0 0 .5rem; max-width: 46rem; }
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(12.5rem, 1fr));
  margin: 0 0 1rem; padding: .4rem 0; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card);
}
.figures div { padding: .4rem 1rem; }
.figures dt { font-size: .8rem; color: var(--quiet); }
.figures dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.sort { display: inline-block; margin: .5rem 0 1rem; color: var(--quiet); }
select {
  margin-left: .4rem; padding: .25rem .4rem; font: inherit; color: var(--text);
  background: var(--card); border: 1px solid var(--line); border-radius: .375rem;
}
.clusters {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
  gap: 1rem; align-items: start;
}
article {
  content-visibility: auto; contain-intrinsic-size: auto 24rem; overflow: hidden;
  border: 1px solid var(--line); border-radius: .5rem; background: var(--card);
}
article:target { outline: 3px solid var(--link); }
article h3 { padding: .6rem .8rem 0; }
article p {
  margin: 0; padding: 0 .8rem .6rem; font-size: .85rem; color: var(--quiet);
  overflow-wrap: anywhere;
}
img { display: block; width: 100%; height: auto; background: #18181b; }
"""

_MEANINGS = {
    "Size: min / median / max": "Images in a cluster, of the clusters in use.",
    "Entropy of sizes / ln K": "1 when all K clusters are equally large, near 0 when almost all "
    "images are in one.",
    "Mean cosine": "Between the embedding of an image and its nearest prototype; 1 is the same "
    "direction.",
    "Same as in training": "Images whose cluster is the label they last had in training, of those "
    "that had one. A label comes from an augmented crop, some steps earlier: not all are the same.",
    "NMI": "Mutual information of clusters and classes over the mean of their entropies: 0 is "
    "independent, 1 equal. Many small clusters raise it.",
    "ARI": "Adjusted Rand index: are pairs of images of one class in one cluster, and others not? "
    "0 is chance, 1 is perfect. Far more clusters than classes lower it.",
    "Purity": "Images that belong to the commonest class of their cluster. More clusters raise it.",
    "Hungarian accuracy": "Images of the right class when each cluster stands for one class and "
    "each class for one cluster, in the best way. With more clusters than classes, the images of "
    "the clusters left over count as wrong.",
}

_SORT = """<label class="sort">Order<select data-clusters="clusters-{number}">
<option value="size -1">largest first</option>
<option value="size 1">smallest first</option>
<option value="score -1">highest mean cosine</option>
<option value="score 1">lowest mean cosine</option>
{by_class}<option value="id 1">by number</option>
</select></label>
"""

_SORT_BY_CLASS = """<option value="share -1">purest</option>
<option value="share 1">least pure</option>
"""

_SCRIPT = """
for (const select of document.querySelectorAll("select")) {
  const clusters = document.getElementById(select.dataset.clusters);
  select.onchange = () => {
    const [key, sign] = select.value.split(" ");
    const sorted = [...clusters.children];
    sorted.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]));
    clusters.append(...sorted);
  };
}
"""
