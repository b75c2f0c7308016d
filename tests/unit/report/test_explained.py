"""Every section and every figure that the report can show is explained in docs/report.md."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from december_plugin import report as room
from december_plugin.report import static
from december_plugin.report.render import render_report
from december_plugin.report.views import SECTIONS
from helpers import pages
from helpers import reports as parts

TEMPLATES = Path(room.__file__).parent / "templates"


def explained(title: str) -> list[str]:
    """Return the first column of a table of the page."""
    table = pages.text_of("docs/report.md").split(f"| {title} |")[1].split("\n\n")[0]
    return re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE)[1:]


def pair_of_models() -> pd.DataFrame:
    """Return what the report compares of two models of the same neurons."""
    numbers = dict.fromkeys(("adjusted_rand_index", "cosine_correlation", "distance_correlation", "linear_cka"), 0.5)
    row = {"method": "kmeans", "n_clusters": 5, "space": "readout", "normalize": "none", "clustering_hash": "k"}
    row |= {"n_common_neurons": 70, "n_seed_pairs": 4, "minimum_test_correlation": np.nan, "alignment": ""}
    return pd.DataFrame([{"name_a": "a", "name_b": name, **row, **numbers} for name in "ab"])


@pytest.fixture(scope="module")
def page() -> str:
    """Return a page with everything but the tree of clusters, whose still pictures are empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static, "picture", lambda draw, alt: static.Picture(Markup("data:image/png;base64,"), alt))
        analysis = parts.full_analysis(
            alignments=parts.alignments(),
            aligned=parts.aligned(),
            functions=parts.functions(),
            functions_table=parts.functions_table(),
            preferred=parts.preferred(),
        )
        page = render_report(parts.report(analysis, configurations=pair_of_models()))
    return html.unescape(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def test_every_section(page: str) -> None:
    menu = re.findall(r'<li><a href="#[^"]*">(.*?)</a></li>', page.split("<nav")[1].split("</nav>")[0])
    assert {name for _, name in SECTIONS} < set(menu)
    assert set(explained("section")) == set(menu)


def figures_with_captions(page: str) -> set[str]:
    """Return the captions of figures; confusion matrices and tiles have the headings of their sections."""
    found = set()
    for section in page.split("<section ")[1:]:
        (heading, *_) = re.findall(r"<h2[^>]*>(.*?)</h2>", section)
        captions = re.findall(r"<figcaption>(.*?)</figcaption>", section, flags=re.DOTALL)
        found |= {heading} if heading in ("Known types", "Preferred stimuli") and captions else set(captions)
    return found


def figures_below_headings() -> set[str]:
    """Return the headings of figures without captions, from the templates."""
    found = set()
    for name in ("analysis.html.j2", "report.html.j2"):
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        heading = ""
        for match in re.finditer(r"<h[23][^>]*>(.*?)</h[23]>|class=\"(?:still (?:matrix|tree)|explorer)", text):
            if match[1]:
                heading = match[1]
            else:  # with one model, the section on all models has a table only
                found.add("Across models" if "configurations" in heading else re.sub(r"\{\{.*?\}\}", "...", heading))
    return found


def test_every_figure(page: str) -> None:
    shown = figures_with_captions(page) | figures_below_headings()
    names = explained("figure")
    patterns = {name: re.compile(".*".join(map(re.escape, name.split("...")))) for name in names}
    unexplained = [figure for figure in shown if not any(pattern.fullmatch(figure) for pattern in patterns.values())]
    assert unexplained == []
    gone = [name for name, pattern in patterns.items() if not any(pattern.fullmatch(figure) for figure in shown)]
    assert gone == []
    assert len(names) == len(set(names)) >= 20
