"""The page, from frames: what it says, what it escapes, what it does without."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects
import pytest
from markupsafe import Markup

from december_plugin.report import render_report, static, tables, views
from december_plugin.report.null_panels import null_figure_of
from helpers import reports as parts

HOSTILE = '_$\\frac${x}%{y} <script>alert(1)</script>"><img src=x onerror=alert(2)> & `x`'


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its texts."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._raw = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def without_scripts(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "<script></script>", page, flags=re.S)


def payload_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page() -> str:
    """Return the page with its still pictures, which take longest."""
    return render_report(parts.report())


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "picture", lambda draw, alt: static.Picture(Markup("data:image/png;base64,"), alt))


def test_all_sections_are_there(page: str) -> None:
    heads = re.findall(r"<h2[^>]*>(.*?)</h2>", without_scripts(page))
    assert heads == [
        "The question",
        "The answer",
        "The data",
        "Agreement against the number of clusters",
        "Compared with a continuum: the null",
        "How many clusters?",
        "Performance against strength",
        "t-SNE of the readout vectors",
        "Known types",
        "The clusters",
        "Methods and settings",
        "State of the tables",
        "Provenance",
    ]


@pytest.mark.usefixtures("no_pictures")
def test_clusters_that_respond_alike_have_a_section_where_that_was_asked_for(page: str) -> None:
    assert 'id="a1-functions"' not in page
    assert "#a1-functions" not in page
    analysis = parts.analysis(functions=parts.functions(), functions_table=parts.functions_table())
    page = without_scripts(render_report(parts.report(analysis)))
    assert '<li><a href="#a1-functions">What they compute</a></li>' in page
    section = page.partition('<section id="a1-functions">')[2].partition("</section>")[0]
    assert "each pair at the best of 8 orientations: as the model predicts" in section
    assert "for 1,200 training stimuli" in section
    assert section.count('<img class="still matrix" src="data:image/') == 2
    assert "<td>3 to 4</td>" in section
    assert ">0.800<" in section
    methods = page.partition('<section id="a1-methods">')[2]
    assert "shifted to each of the core&#39;s 8 orientations" in methods
    assert "Ustyuzhaninov, I. et al." in methods
    linear = parts.functions(responses="linear", n_orientations=1, n_images=None)
    analysis = parts.analysis(functions=linear, functions_table=parts.functions_table())
    section = render_report(parts.report(analysis)).partition('<section id="a1-functions">')[2]
    assert "its linear responses, before the model" in section


def section_of(page: str, name: str) -> str:
    return page.partition(f'<section id="a1-{name}">')[2].partition("</section>")[0]


@pytest.mark.usefixtures("no_pictures")
def test_images_are_next_to_the_islands_of_their_clusters() -> None:
    page = without_scripts(render_report(parts.report(parts.analysis(preferred=parts.preferred()))))
    section = section_of(page, "preferred")
    assert re.findall(r"Cluster (\d) <span class=\"count\">1,234 neurons, block (\d)", section) == [
        *(("1", "0"), ("4", "0"), ("5", "0"), ("3", "1"), ("0", "2"), ("2", "2"))
    ]
    assert section.count('<img class="island" src="data:image/png;base64,') == 6
    assert 'alt="Maximally exciting images of 10 neurons of cluster 3."' in section
    assert "0.90 to images of neurons of its own cluster and 0.25 to images of neurons of other clusters" in section
    assert section.count('<img class="still matrix"') == 1
    assert "Walker, E. Y. et al. Inception loops" in page
    sizes = [len(found) for found in re.findall(r'src="data:image/png;base64,([^"]*)"', section)]
    assert max(sizes) < 30_000
    nothing = {"compared": pd.DataFrame(), "islands": pd.DataFrame(), "blocks": {}}
    assert "had converged" not in section
    alone = parts.preferred(**nothing, outcome="too few neurons")
    alone.neurons.loc[:9, "ending"] = "max_steps"
    section = section_of(render_report(parts.report(parts.analysis(preferred=alone))), "preferred")
    assert "is not shown: too few neurons." in section
    assert "For 10 of 60 images the ascent ended before it had converged" in section
    assert 'class="island"' not in section
    assert "1,234 neurons</span>" in section


@pytest.mark.usefixtures("no_pictures")
def test_alignments_have_a_section_with_what_is_good_and_what_is_suspicious(page: str) -> None:
    assert 'id="a1-rotation"' not in page
    analysis = parts.analysis(alignments=parts.alignments(), aligned=parts.aligned())
    page = without_scripts(render_report(parts.report(analysis)))
    assert '<li><a href="#a1-rotation">Alignment</a></li>' in page
    section = section_of(page, "rotation")
    assert "every feature at 8 orientations" in section
    assert section.count('<span class="state">good</span>') == 2
    assert section.count('<img class="still matrix"') == 3
    assert "<td>equivariant core, gaussian readout, aligned (features permuted in every neuron)</td>" in section
    assert "Used: aligned, aligned (features permuted in every neuron)." in section_of(page, "methods")
    stored = section_of(render_report(parts.report(parts.analysis(alignments=parts.alignments()))), "rotation")
    assert stored.count('<img class="still matrix"') == 1


def test_models_of_the_same_neurons_are_compared_in_a_matrix_with_their_names() -> None:
    numbers = {"n_common_neurons": 70, "n_seed_pairs": 4, "adjusted_rand_index": 0.42, "cosine_correlation": 0.91}
    numbers |= {"distance_correlation": 0.87, "linear_cka": np.nan}
    row = {"method": "kmeans", "n_clusters": 5, "space": "functional", "normalize": "l2", "clustering_hash": "k"}
    row |= {"minimum_test_correlation": np.nan, "alignment": ""}
    names = [("linear core", "linear core"), ("linear core", "nonlinear core")]
    pairs = pd.DataFrame([{"name_a": a, "name_b": b, **row, **numbers} for a, b in names])
    page = without_scripts(render_report(parts.report(parts.analysis(), configurations=pairs)))
    section = page.partition('<section id="configurations">')[2].partition("</section>")[0]
    assert "k-means, K = 5, functional, direction" in section
    filtered = parts.report(parts.analysis(), configurations=pairs.assign(minimum_test_correlation=0.3))
    assert "k-means, K = 5, functional, direction, test correlation 0.3 and above" in render_report(filtered)
    aligned = parts.report(parts.analysis(), configurations=pairs.assign(alignment="aligned"))
    assert "k-means, K = 5, functional, direction, aligned" in render_report(aligned)
    assert '<img class="still matrix" src="data:image/svg+xml;base64,' in section
    assert "<td>nonlinear core</td>" in section
    assert ">0.420<" in section
    assert '<a href="#configurations">' in page
    alone = render_report(parts.report(parts.analysis(), configurations=pairs.iloc[:1]))
    section = alone.partition('<section id="configurations">')[2].partition("</section>")[0]
    assert "<h2>Embeddings across seeds</h2>" in section
    assert ">0.870<" in section
    assert "<img" not in section
    unknown = pairs.iloc[:1].assign(cosine_correlation=np.nan, distance_correlation=np.nan)
    assert 'id="configurations"' not in render_report(parts.report(parts.analysis(), configurations=unknown))


@pytest.mark.usefixtures("no_pictures")
def test_the_same_data_give_the_same_page() -> None:
    assert render_report(parts.report()) == render_report(parts.report())


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    elements = Elements(without_scripts(page))
    addresses = [a for _, each in elements.found for name, a in each.items() if name in ("src", "href") and a]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "url(" not in "".join(re.findall(r"<style>(.*?)</style>", page, re.S))


def test_the_policy_names_the_scripts_of_the_page_by_their_hashes(page: str) -> None:
    policy = next(
        each["content"] for each in Elements(page).all("meta") if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_plotly_accepts_all_charts(page: str) -> None:
    figures = payload_of(page)["charts"]
    assert len(figures) == 11
    for figure in figures.values():
        plotly.graph_objects.Figure(figure, skip_invalid=False)


def test_the_charts_have_the_numbers(page: str) -> None:
    first = next(iter(payload_of(page)["charts"].values()))
    traces = {trace["name"]: trace for trace in first["data"] if "name" in trace}
    assert traces["k-means, end of pretraining"]["y"] == pytest.approx([0.75, 0.65, 0.55])
    assert traces["k-means, end of pretraining"]["marker"]["symbol"] == "triangle-up-open"
    assert traces["DECEMber, strength auto"]["line"]["color"] == "#0072B2"


def test_the_first_figure_is_every_method_next_to_its_own_null(page: str) -> None:
    elements = Elements(without_scripts(page))
    labels = [label for _, _, label, *_ in parts.METHODS]
    panels = re.findall(r'<div class="panel">(.*?)</div>', without_scripts(page), re.S)
    names = [re.search("<strong>(.*?)</strong>", panel)[1] for panel in panels]
    assert sorted(names) == sorted(labels)
    assert names[-1] == "k-means, end of pretraining"
    assert all("not above its null at any K\nsmallest p\u00a0=\u00a00.4" in panel for panel in panels)
    # It comes before every table, chart and other picture.
    at = page.index('<figure class="nulls">')
    assert all(at < page.index(mark) for mark in ('<details class="numbers"', 'class="plot', "<img"))
    assert elements.text.index("next to its own null") < elements.text.index("Are there types?")
    titles = re.findall(r"<title>(K = 4.*?)</title>", panels[0])
    assert titles == ["K = 4: 0.700 ± 0.020; null 0.670 to 0.720; p = 0.4"]


@pytest.mark.parametrize(("p_value", "n_marked"), [(0.05, 3), (0.051, 0)])
def test_an_asterisk_marks_a_p_value_of_at_most_the_threshold(p_value: float, n_marked: int) -> None:
    table = parts.agreement()
    found = null_figure_of(parts.analysis(nulls=parts.nulls(table).assign(p_value=p_value)))
    assert found is not None
    asterisk = 'stroke-width="1.3"'
    without = found.panels[0].drawing.count('stroke="#333333" ' + asterisk)
    assert without == 3 * n_marked
    assert found.threshold == "p ≤ 0.05"


@pytest.mark.slow(4)
def test_of_many_methods_few_are_in_colour_and_the_tables_have_all() -> None:
    one = parts.agreement()[lambda frame: frame["label"] == "DECEMber, strength 100"]
    more = [one.assign(label=f"DECEMber, run {i}", agreement_mean=i / 300) for i in range(200)]
    table = pd.concat([parts.agreement(), *more], ignore_index=True)
    analysis = parts.analysis(agreement=table, nulls=parts.nulls(table), embedding=None)
    payload = views.Payload()
    view = views.analysis_view(1, analysis, parts.report(analysis), payload)
    assert len(view["legend"]) == 13
    assert view["legend"][-1]["label"] == "193 others, grey"
    first = payload.figures[view["agreement"]["charts"][0]["id"]]
    assert len(first["data"]) == 13
    assert first["data"][0]["line"]["color"] == "#C4C4C4"
    assert first["data"][0]["x"].count(None) == 193
    assert len(view["agreement"]["table"].rows) == 205 * 3
    assert view["null"]["figure"].n_others == 193
    assert len(view["null"]["figure"].panels) == 12


def test_methods_on_the_same_models_are_one_line_of_test_correlation(page: str) -> None:
    figures = {
        tuple(each["layout"][name]["title"]["text"] for name in ("xaxis", "yaxis")): each
        for each in payload_of(page)["charts"].values()
    }
    figure = figures["number of clusters K", "test correlation"]
    found = {trace["name"]: trace for trace in figure["data"]}
    names = ["DECEMber, strength auto", "DECEMber, strength 100", "k-means / t mixture", "k-means, end of pretraining"]
    assert sorted(found) == sorted(names)
    shared = found["k-means / t mixture"]
    assert shared["meta"]["labels"] == ["k-means", "t mixture"]
    assert shared["y"] == pytest.approx([0.42] * 3)
    assert shared["error_y"]["array"] == pytest.approx([0.004] * 3)
    assert [custom[0] for custom in shared["customdata"]] == ["k-means / t mixture"] * 3


def test_performance_is_next_to_its_ceiling_and_says_over_what_it_is_a_mean() -> None:
    sessions = parts.analysis().sessions.assign(untested=["", "all its responses are constant, so they were withheld"])
    analysis = parts.analysis(performance=parts.performance(), sessions=sessions)
    table = tables.performance_table_of(analysis)
    assert table is not None
    assert table.heads == (
        *("models of", "single-trial correlation", "its noise ceiling", "correlation to the average"),
        *("its noise ceiling", "normalized", "FEVE", "neurons", "constant", "explainable"),
    )
    assert table.rows[0][:7] == ("k-means / t mixture", "0.420 ± 0.010", "0.550", "0.610", "0.800", "0.760", "0.580")
    assert table.rows[0][7:] == ("1,030", "2", "640 of 1,030")
    assert table.rows[1][:3] == ("k-means, end of pretraining", "0.400", "–")
    assert tables.sessions_table_of(analysis).heads[-1] == "not tested"
    assert tables.sessions_table_of(parts.analysis()).heads[-1] == "mean test correlation"
    others = "; the others could not be tested (see the table above)."
    assert tables.tested_words(analysis) == f"Means are over 1,030 neurons in 2 of 3 sessions{others}"
    everything = parts.analysis(performance=parts.performance(n_untested=0))
    assert tables.tested_words(everything) == "Means are over 1,030 neurons in 2 of 2 sessions."
    unknown = parts.performance().assign(n_tested_sessions=np.nan, n_untested_sessions=np.nan)
    assert tables.tested_words(parts.analysis(performance=unknown)) == ""
    assert tables.performance_table_of(parts.analysis()) is None
    words = Elements(without_scripts(render_report(parts.report(analysis)))).text
    assert "How well the models predict" in words
    assert f"Means are over 1,030 neurons in 2 of 3 sessions{others}" in words


def test_criteria_of_other_readout_vectors_are_drawn_minus_the_best_of_their_curve(page: str) -> None:
    figures = {each["layout"]["yaxis"]["title"]["text"]: each for each in payload_of(page)["charts"].values()}
    bic = figures["BIC − curve's best"]["data"][0]
    assert bic["y"] == pytest.approx([0.0, 4.0, 0.0])  # less is better
    assert bic["customdata"][1][2].endswith("the value itself: 0")
    likelihood = figures["nat per neuron − curve's best"]["data"][0]
    assert likelihood["y"] == pytest.approx([-4.0, 0.0, -4.0])
    assert "compare along a curve, never between curves" in Elements(without_scripts(page)).text


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("method", "words"), [("december", "a second strength"), ("kmeans", "models with a clustering")]
)
def test_a_single_strength_has_no_charts_of_strengths(method: str, words: str) -> None:
    table = parts.agreement()
    table = table[(table["method"] != "december") | (table["label"] == "DECEMber, strength auto")]
    table = table[table["method"].isin(["kmeans", method])].reset_index(drop=True)
    table["strength"] = table["strength"] * table["n_clusters"]  # what "auto" comes out at differs between K
    page = render_report(parts.report(parts.analysis(agreement=table)))
    assert f"Missing: {words}" in Elements(page).text


@pytest.mark.usefixtures("no_pictures")
def test_one_number_of_clusters_has_no_charts_of_criteria() -> None:
    table = parts.agreement()[lambda frame: frame["n_clusters"] == 6]
    analysis = parts.analysis(agreement=table, counts=parts.counts(table), choices=parts.choices(table))
    view = views.analysis_view(1, analysis, parts.report(analysis), views.Payload())
    assert view["counts"]["charts"] == []
    assert len(view["counts"]["table"].rows) == 5


def test_every_plot_and_picture_says_what_it_shows(page: str) -> None:
    elements = Elements(without_scripts(page))
    plots = [each for each in elements.all("div") if "plot" in (each.get("class") or "").split()]
    assert plots
    assert all(each.get("aria-label") for each in plots)
    assert all(each.get("alt") for each in elements.all("img"))
    assert len(elements.all("img")) == 6


def hostile_report() -> Any:
    table = parts.agreement().assign(label=[f"{name} {HOSTILE}" for name in parts.agreement()["label"]])
    frame = parts.neurons().assign(data_key=HOSTILE)
    frame["type"] = HOSTILE
    entry = {"fn": HOSTILE, "hash": "h", "comment": HOSTILE, "config": {}}
    analysis = replace(
        parts.full_analysis(),
        name=HOSTILE,
        dataset=entry,
        model=entry,
        agreement=table,
        nulls=parts.nulls(table),
        counts=parts.counts(table),
        choices=parts.choices(table).assign(statement=HOSTILE),
        sessions=parts.analysis().sessions.assign(data_key=HOSTILE),
        chosen=parts.chosen(frame, label=HOSTILE, reason=HOSTILE),
        embedding=parts.embedding(frame),
        types_name=HOSTILE,
        missing=(parts.MissingItem("the t-SNE", HOSTILE),),
    )
    reasons = pd.DataFrame(
        [["TrainedModel", 2, HOSTILE, HOSTILE, "j"]], columns=["table", "count", "reason", "example", "job"]
    )
    entries = parts.report().entries.assign(comment=HOSTILE)
    return parts.report(
        analysis, title=HOSTILE, command=HOSTILE, schema=HOSTILE, server=HOSTILE, failures=reasons, entries=entries
    )


@pytest.mark.usefixtures("no_pictures")
def test_texts_of_the_database_are_escaped() -> None:
    page = render_report(hostile_report())
    elements = Elements(page)
    assert len(elements.all("script")) == 3
    assert all((each.get("src") or "").startswith("data:image/") for each in elements.all("img"))
    assert not [name for _, each in elements.found for name in each if name.startswith("on")]
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert HOSTILE in elements.text


@pytest.mark.usefixtures("no_pictures")
def test_plotly_gets_texts_that_it_shows_as_they_are() -> None:
    payload = payload_of(render_report(hostile_report()))
    for figure in payload["charts"].values():
        for trace in figure["data"]:
            trace.pop("meta", None)  # compared with the legend's, never shown
            assert HOSTILE.split("<")[0] not in str(trace.get("hovertemplate"))
    texts = json.dumps(payload["charts"])
    assert "<script" not in texts
    assert "<img" not in texts
    assert "&lt;script&gt;" in texts


@pytest.mark.usefixtures("no_pictures")
def test_a_password_is_not_in_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJ_PASS", "correct horse battery")
    entries = parts.report().entries.assign(config='{"password": "other-secret", "url": "x correct horse battery"}')
    page = render_report(parts.report(entries=entries, command="december report --title 'correct horse battery'"))
    assert "correct horse battery" not in page
    assert "other-secret" not in page


@pytest.mark.usefixtures("no_pictures")
def test_without_anything_but_agreement() -> None:
    bare = replace(parts.analysis(), chosen=None, embedding=None)
    text = Elements(render_report(parts.report(bare))).text
    assert "Missing: surrogates without clusters." in text
    assert "Missing: criteria for the number of clusters." in text
    assert "Missing: known types of these neurons." in text
    assert "Missing: the t-SNE. It was not asked for" in text


@pytest.mark.usefixtures("no_pictures")
def test_without_a_second_seed() -> None:
    table = parts.agreement(
        agreement_mean=np.nan,
        agreement_sd=np.nan,
        n_pairs=0,
        n_models=1,
        test_correlation_sd=np.nan,
        types_agreement_sd=np.nan,
    )
    frame = parts.neurons().assign(stability=np.nan)
    one = replace(parts.analysis(), agreement=table, chosen=parts.chosen(frame, n_seeds=1, seeds=(4,)))
    page = render_report(parts.report(one))
    text = Elements(page).text
    assert "Missing: agreement between seeds. At least two seeds are needed" in text
    assert "There is one seed, 4: nothing is known about stability." in text
    resampled = pd.DataFrame({"cluster": [0, 1, 2], "jaccard_mean": [0.9, 0.6, 0.3], "jaccard_sd": [0.1, 0.1, 0.2]})
    resampled.attrs = {"share": 0.5, "n_draws": 20}
    shown = replace(one, chosen=replace(one.chosen, resampled=resampled))
    text = Elements(render_report(parts.report(shown))).text
    assert "There is one seed, 4. Clustered again, 50% of the neurons at a time (20 draws), 1 of 3 clusters" in text
    assert "Not decided yet: there is only one seed (1 of 3 clusters are found again in parts of its neurons)" in text
    assert "(20 draws), 1 of 3 clusters are found again (Jaccard similarity of at least 0.75 on average) and 1 " in text
    assert "Jaccard in half of the neurons" in text
    assert "stability" not in next(iter(payload_of(page)["embeddings"].values()))


@pytest.mark.usefixtures("no_pictures")
def test_several_data_sets_have_an_overview() -> None:
    first, second = parts.full_analysis(), replace(parts.analysis(), name="other data")
    page = render_report(parts.report(first, second))
    text = Elements(page).text
    assert "1. two sessions, small model" in text
    assert "2. other data" in text
    assert "Not decided yet: for some datasets, something that is needed has not been computed." in text
    ids = [each["id"] for _, each in Elements(without_scripts(page)).found if each.get("id")]
    assert len(ids) == len(set(ids))


@pytest.mark.usefixtures("no_pictures")
def test_failures_are_told() -> None:
    reasons = pd.DataFrame(
        [["TrainedModel", 2, "out of memory", "CUDA out of memory", "ab12"]],
        columns=["table", "count", "reason", "example", "job"],
    )
    text = Elements(render_report(parts.report(failures=reasons))).text
    assert "Some jobs failed." in text
    assert "CUDA out of memory" in text


@pytest.mark.usefixtures("no_pictures")
def test_arrays_of_the_embedding_come_back() -> None:
    frame = parts.neurons()
    page = render_report(parts.report(replace(parts.full_analysis(), embedding=parts.embedding(frame))))
    numbers = next(iter(payload_of(page)["embeddings"].values()))

    def unpacked(name: str) -> np.ndarray:
        return np.frombuffer(base64.b64decode(numbers[name]["bytes"]), dtype=numbers[name]["dtype"])

    np.testing.assert_array_equal(unpacked("unit"), frame["unit_id"])
    np.testing.assert_array_equal(unpacked("cluster"), frame["cluster"])
    np.testing.assert_allclose(unpacked("stability"), frame["stability"], rtol=1e-6)
    assert numbers["sessions"] == ["first", "second"]
    shown = [numbers["types"][code] if code >= 0 else None for code in unpacked("type")]
    assert shown == [None if pd.isna(name) else name for name in frame["type"]]


@pytest.mark.usefixtures("no_pictures")
def test_clusters_have_their_stored_numbers_everywhere() -> None:
    page = render_report(parts.report())
    text = Elements(without_scripts(page)).text
    numbers = payload_of(page)
    assert [f"Cluster {code} " in text for code in range(7)] == [True] * 6 + [False]
    (heat,) = [figure["data"][0] for figure in numbers["charts"].values() if figure["data"][0]["type"] == "heatmap"]
    assert heat["y"] == ["2", "0", "1"]
    (bars, _) = next(f["data"] for f in numbers["charts"].values() if f["data"][0]["type"] == "bar")
    assert bars["x"] == ["0", "1", "2", "3", "4", "5"]
    boxes = [each for each in Elements(page).all("input") if each.get("type") == "checkbox"]
    assert [each["value"] for each in boxes[-6:]] == ["0", "1", "2", "3", "4", "5"]
    assert "neurons.cluster[i] + 1" not in page


@pytest.mark.usefixtures("no_pictures")
def test_a_type_has_the_colour_of_the_cluster_that_it_matches() -> None:
    frame = parts.neurons(n_clusters=3).assign(type=lambda rows: [f"type {(code + 1) % 3}" for code in rows["cluster"]])
    data = replace(parts.full_analysis(), chosen=parts.chosen(frame, n_clusters=3), embedding=parts.embedding(frame))
    numbers = next(iter(payload_of(render_report(parts.report(data)))["embeddings"].values()))
    assert numbers["types"] == ["type 0", "type 1", "type 2"]
    assert numbers["typeColors"] == [numbers["colors"][code] for code in (2, 0, 1)]
    assert len(set(numbers["colors"])) == 3


@pytest.mark.usefixtures("no_pictures")
def test_what_can_be_searched_for_is_there_and_a_contradiction_is_said() -> None:
    table = parts.agreement()
    data = replace(parts.full_analysis(), choices=parts.choices(table, picked=4.0))
    page = Elements(render_report(parts.report(data)))
    (search,) = [each for each in page.all("input") if each.get("type") == "search"]
    assert search["placeholder"] == "7 or first/7"
    assert page.text.count("The clusters shown one by one are those of K = 6, but criteria agree on K = 4.") == 3
    assert "DECEMber, strength auto, K = 6, consensus of 3 seeds" in page.text
