"""``december report`` and ``december export`` on real tables, the page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page

from december_plugin import cli
from december_plugin.errors import ExitCode
from december_plugin.report.columns import COLUMNS
from december_plugin.results import agreement as queries
from december_plugin.results import assignments
from december_plugin.results.queries import configuration_key
from helpers import lab_tables, planted_lab
from helpers.chromium import Log, resize, running_chromium

pytestmark = pytest.mark.slow(2)

HOSTILE = "DECEMber <script>document.title = 'broken'</script><img src=x onerror=alert(1)>"
SEEDS = [1, 2, 3]
READER = "report_reader"


@pytest.fixture(scope="module")
def filled(new_schema_name: Callable[[], str]) -> lab_tables.Lab:
    """Return a lab with three seeds of everything, known types, a null, a failed job, and a comment to beware of."""
    lab = lab_tables.open_lab(new_schema_name())
    december = lab.plan("december", SEEDS)
    lab.plan("baseline", SEEDS)
    lab.plan("baseline", SEEDS, control=True)
    lab.nnfabrik.Trainer.update1({**december, "trainer_comment": HOSTILE})
    for method in ("kmeans", "t_mixture"):
        for count in (2, 3, 4):
            lab.tables.Clustering().add_entry(method, count, n_init=1)
    lab.tables.KnownTypes().add_entry("planted", lab_tables.truth(), source="by hand")
    lab.tables.Surrogate().add_entry(name="quick", n_draws=3)
    for table in lab.tables.computed:
        if table.__name__ != "SurrogateAgreement":
            table.populate()
    three = lab.tables.Clustering & "method = 'kmeans'" & "n_clusters = 3"
    lab.tables.SurrogateAgreement.populate(three.proj())
    lab.plan("fails_for_seed", [2], bad_seed=2)
    lab.tables.TrainedModel.populate("trainer_fn LIKE '%fails%'", reserve_jobs=True, suppress_errors=True)
    return lab


def options(lab: lab_tables.Lab) -> list[str]:
    name = lab.tables.schema.database
    return ["--schema", name, "--nnfabrik", name]


@pytest.fixture(scope="module")
def report(filled: lab_tables.Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert cli.main(["report", "-o", str(path), "--clusters", "3", *options(filled)]) == 0
    return path


# --- the page in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def blank(browser: Browser) -> Page:
    """Open an empty page."""
    return browser.new_page(viewport={"width": 1200, "height": 900})


@pytest.fixture(scope="module")
def log(blank: Page) -> Log:
    """Keep what the page logs and asks for from its beginning."""
    return Log.of(blank)


@pytest.fixture(scope="module")
def page(blank: Page, log: Log, report: Path) -> Page:
    """Open the report and wait until everything is drawn."""
    blank.goto(report.resolve().as_uri())
    blank.wait_for_function("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
    return blank


def test_the_page_has_no_errors_and_asks_for_nothing(page: Page, log: Log, report: Path) -> None:
    assert log.problems == []
    others = [url for url in log.requests if not url.startswith("data:image/")]
    assert others == [report.resolve().as_uri()]


def test_all_plots_are_there(page: Page) -> None:
    assert page.evaluate("document.querySelectorAll('.plot').length") >= 10
    assert page.evaluate(
        "[...document.querySelectorAll('.plot[data-chart]')].every((p) => p.querySelector('.plotly svg'))"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('.still')].every((image) => image.complete && image.naturalWidth > 0)"
    )
    assert page.evaluate("document.querySelectorAll('.still').length") >= 6


def test_texts_of_the_database_are_shown_and_not_run(page: Page) -> None:
    assert page.evaluate("document.title") != "broken"
    assert page.evaluate("document.querySelectorAll('script').length") == 3
    assert page.evaluate(f"document.body.innerText.includes({json.dumps(HOSTILE)})")
    assert page.evaluate("document.querySelectorAll('img:not(.still)').length") == 0


def test_the_legend_hides_a_method_in_all_charts_of_its_group(page: Page) -> None:
    button = "document.querySelector('.legend[data-group] button[data-label=\"t mixture\"]')"
    group = f"{button}.closest('.legend').dataset.group"
    plots = f"[...document.querySelectorAll('.charts[data-group=\"' + {group} + '\"] .plot')]"
    traces = f"{plots}.flatMap((plot) => plot.data.filter((t) => t.meta && t.meta.labels))"
    own = f"{traces}.filter((t) => t.meta.labels.length === 1 && t.meta.label === 't mixture').map((t) => t.visible)"
    shared = f"{traces}.filter((t) => t.meta.labels.length > 1 && t.meta.labels.includes('t mixture'))"
    page.evaluate(f"{button}.click()")
    page.wait_for_function(f"{own}.length && {own}.every((visible) => visible === false)")
    assert page.evaluate(f"{button}.getAttribute('aria-pressed')") == "false"
    # The line of a trained model stays as long as one of the methods that cluster it is shown.
    assert page.evaluate(f"{shared}.length") == 1
    assert page.evaluate(f"{shared}[0].visible") is True
    others = f"[...{button}.closest('.legend').querySelectorAll('button')].filter((b) => b !== {button} "
    others += f"&& {shared}[0].meta.labels.includes(b.dataset.label))"
    page.evaluate(f"{others}.forEach((other) => other.click())")
    page.wait_for_function(f"{shared}[0].visible === false")
    page.evaluate(f"{others}.forEach((other) => other.click())")
    page.evaluate(f"{button}.click()")
    page.wait_for_function(f"{own}.every((visible) => visible === true) && {shared}[0].visible === true")


def n_points(page: Page) -> int:
    return page.evaluate(
        "document.querySelector('.map').data.filter((t) => t.name !== 'found').reduce((n, t) => n + t.x.length, 0)"
    )


def change(page: Page, selector: str, setting: str) -> None:
    page.evaluate(
        f"(() => {{ const e = document.querySelector({json.dumps(selector)}); {setting}; "
        "e.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


@pytest.fixture
def explorer(page: Page) -> Iterator[Page]:
    yield page
    page.evaluate("document.querySelector('.explorer form').reset()")
    page.wait_for_function("document.querySelector('[data-role=status]').textContent.startsWith('70 of 70')")


def test_filters_by_session_cluster_and_stability(explorer: Page, filled: lab_tables.Lab) -> None:
    assert n_points(explorer) == 70
    change(explorer, "[data-role=sessions] input", "e.checked = false")
    explorer.wait_for_function(
        "document.querySelector('[data-role=status]').textContent.startsWith('30 of 70 drawn neurons')"
    )
    assert n_points(explorer) == 30
    change(explorer, "[data-role=sessions] input", "e.checked = true")
    stable = assignments.stable_neurons(filled.tables, filled.tables.ClusterAssignment & december_of(filled))
    change(explorer, "[data-role=clusters] input", "e.checked = false")
    assert n_points(explorer) == int((stable["cluster"] != 0).sum())
    explorer.evaluate("document.querySelector('[data-none=clusters]').click()")
    assert n_points(explorer) == 0
    explorer.evaluate("document.querySelector('[data-all=clusters]').click()")
    change(explorer, "[data-role=stability]", "e.value = 1")
    assert n_points(explorer) == int((stable["stability"] == 1).sum())


def december_of(lab: lab_tables.Lab) -> Any:
    return (lab.tables.ClusterAssignment & (lab.tables.Clustering & "method = 'december'").proj()).fetch("KEY")


def test_a_unit_can_be_searched_for_and_is_described(explorer: Page) -> None:
    change(explorer, "[data-role=search]", "e.value = 'second/10'")
    explorer.wait_for_function("!document.querySelector('[data-role=found]').hidden")
    words = explorer.evaluate("document.querySelector('[data-role=found]').innerText")
    assert words.count("unit") == 1
    assert words.startswith("session second, unit 10, cluster ")
    assert "type 1" in words
    change(explorer, "[data-role=search]", "e.value = '10'")
    assert explorer.evaluate("document.querySelectorAll('[data-role=found] li').length") == 2
    change(explorer, "[data-role=search]", "e.value = 'nobody/1'")
    assert explorer.evaluate("document.querySelector('[data-role=status]').textContent").endswith(
        "none of them is found."
    )


@pytest.mark.parametrize("color", ["cluster", "type", "session", "stability", "confidence"])
def test_colours_of_the_map(explorer: Page, color: str) -> None:
    change(explorer, "[data-role=color]", f"e.value = {json.dumps(color)}")
    assert explorer.evaluate("document.querySelector('[data-role=color]').value") == color
    assert n_points(explorer) == 70
    hover = explorer.evaluate("document.querySelector('.map').data[0].text[0]")
    assert all(word in hover for word in ("session ", "unit ", "cluster ", "stability "))


def test_the_cloud_stays_where_it_is_when_it_is_coloured_anew(explorer: Page) -> None:
    place = "JSON.stringify(document.querySelector('.map')._fullLayout._size)"
    ranges = "JSON.stringify(['xaxis', 'yaxis'].map((n) => document.querySelector('.map')._fullLayout[n].range))"
    before = explorer.evaluate(place), explorer.evaluate(ranges)
    change(explorer, "[data-role=color]", "e.value = 'stability'")
    explorer.wait_for_function("document.querySelector('.explorer .ramp') !== null")
    assert (explorer.evaluate(place), explorer.evaluate(ranges)) == before
    assert explorer.evaluate("document.querySelector('.map .colorbar')") is None
    # Plotly's buttons have a strip of their own above the cloud.
    bar = explorer.evaluate("document.querySelector('.map .modebar').getBoundingClientRect().bottom")
    top = explorer.evaluate("document.querySelector('.map').getBoundingClientRect().top")
    assert bar <= top + explorer.evaluate("document.querySelector('.map')._fullLayout._size.t") + 1


def test_the_menu_says_where_the_reader_is(page: Page) -> None:
    marked = "[...document.querySelectorAll('nav a[aria-current]')].map((link) => link.textContent).join()"
    for section, name in (
        ("a1-tsne", "t-SNE"),
        ("a1-null", "Null"),
        ("provenance", "Provenance"),
        ("question", "Question"),
    ):
        page.evaluate(f"document.getElementById('{section}').scrollIntoView()")
        page.wait_for_function(f"{marked} === '{name}'")


def test_plots_of_a_row_begin_at_one_height(page: Page) -> None:
    for charts in range(page.evaluate("document.querySelectorAll('.charts').length")):
        plots = f"[...document.querySelectorAll('.charts')[{charts}].querySelectorAll('.plot')]"
        columns: dict[int, set[int]] = {}
        for x, y in page.evaluate(f"{plots}.map((p) => p.getBoundingClientRect()).map((box) => [box.left, box.top])"):
            columns.setdefault(round(x), set()).add(round(y))
        assert len({min(heights) for heights in columns.values()}) <= 1


def test_it_fits_a_phone(page: Page, log: Log) -> None:
    resize(page, 360, 740)
    try:
        page.wait_for_function("document.documentElement.clientWidth === 360")
        page.wait_for_function("document.documentElement.scrollWidth === 360")
        page.wait_for_function(
            "[...document.querySelectorAll('.plot .main-svg')].every((svg) => svg.clientWidth <= 360)"
        )
        # What is wider than the phone is scrolled in a box of its own, and says so; nothing else is cut.
        boxes = "[...document.querySelectorAll('details[open] > .scroll')]"
        page.wait_for_function(f"{boxes}.some((box) => box.classList.contains('wide'))")
        assert page.evaluate(
            f"{boxes}.every((b) => b.classList.contains('wide') === (b.scrollWidth > b.clientWidth + 1))"
        )
        assert log.problems == []
    finally:
        resize(page, 1200)


def test_at_night_the_page_is_dark_and_figures_keep_their_paper(page: Page) -> None:
    color = "getComputedStyle(document.querySelector('{}')).backgroundColor"
    page.emulate_media(color_scheme="dark")
    try:
        assert page.evaluate(color.format("body")) == "rgb(20, 24, 28)"
        assert page.evaluate(color.format(".plot")) == "rgb(255, 255, 255)"
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(color.format("body")) == "rgb(255, 255, 255)"
    finally:
        page.emulate_media(media="null", color_scheme="null")


def test_it_prints_with_still_pictures(page: Page, tmp_path: Path) -> None:
    page.emulate_media(media="print")
    try:
        assert page.evaluate("getComputedStyle(document.querySelector('.interactive')).display") == "none"
        assert page.evaluate("getComputedStyle(document.querySelector('.still')).display") == "block"
        # Long entries are broken between pages rather than moved as a whole.
        assert page.evaluate("getComputedStyle(document.querySelector('details.cluster')).breakInside") == "auto"
        assert page.evaluate("getComputedStyle(document.querySelector('h2')).breakAfter") == "avoid"
    finally:
        page.emulate_media(media="null")
    page.pdf(path=tmp_path / "report.pdf", print_background=True)
    assert (tmp_path / "report.pdf").stat().st_size > 50_000


# --- what it says


def test_the_report_tells_of_the_failure_and_of_what_is_missing(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "Some jobs failed." in text
    assert "seed 2 is not to my liking" in text
    assert "With 3 draws p cannot be below 0.25: draw more." in text


def test_a_report_over_nothing_is_an_error_and_no_file(
    empty_lab: lab_tables.Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.html"
    name = empty_lab.tables.schema.database
    assert cli.main(["report", "-o", str(path), *options(empty_lab)]) == ExitCode.ERROR
    assert capsys.readouterr().err == (
        f"december: error: there is nothing to report: the schema {name!r} has 0 planned trainings, 0 trained models "
        "and no cluster assignments. `december register SWEEP.yaml` plans trainings, `december worker` computes them.\n"
    )
    assert cli.main(["export", str(tmp_path / "numbers"), *options(empty_lab)]) == ExitCode.ERROR
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clusters", "9"], "there are no assignments with 9 clusters. Available: 2, 3, 4."),
        (["--dataset", "zz"], "no dataset with cluster assignments has a hash that begins with 'zz'. Hashes: "),
        (["--types", "mine"], "there are no known types named 'mine'. Known: planted."),
        (["--max-neurons", "0"], "--max-neurons"),
    ],
)
def test_wrong_choices(
    filled: lab_tables.Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["report", "-o", str(tmp_path / "r.html"), *words, *options(filled)]) == ExitCode.ERROR
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_not_replaced(
    filled: lab_tables.Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "thesis.html"
    path.write_text("mine")
    assert cli.main(["report", "-o", str(path), *options(filled)]) == ExitCode.ERROR
    message = f"december: error: {path} exists and is not a december report; name another file (-o), or add --force.\n"
    assert capsys.readouterr().err == message
    assert path.read_text() == "mine"


def test_a_reader_without_the_store_gets_all_but_the_t_sne(
    filled: lab_tables.Lab, december: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    own, name = server.settings, filled.tables.schema.database
    query = filled.tables.schema.connection.query
    query(f"CREATE OR REPLACE USER '{READER}'@'127.0.0.1' IDENTIFIED BY 'only reading'")
    for schema in (name, "nnfabrik_core"):
        query(f"GRANT SELECT ON `{schema}`.* TO '{READER}'@'127.0.0.1'")
    settings = {"stores": {"minio": {"protocol": "file", "location": str(tmp_path / "not_mounted")}}}
    (tmp_path / "dj_local_conf.json").write_text(json.dumps(settings))
    account = {"DJ_HOST": f"127.0.0.1:{own.port}", "DJ_USER": READER, "DJ_PASS": "only reading"}
    done = december("report", "--clusters", "3", *options(filled), cwd=tmp_path, **account, DECEMBER_USE_TLS="false")
    query(f"DROP USER '{READER}'@'127.0.0.1'")
    assert done.returncode == 0, done.stderr
    assert "the t-SNE. The vectors could not be read or drawn:" in done.stdout
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Missing: the t-SNE." in text
    assert "only reading" not in text


# --- export


def test_the_export_has_the_numbers_of_the_queries(
    filled: lab_tables.Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "numbers"
    assert cli.main(["export", str(folder), *options(filled)]) == 0
    assert "README.txt explains the columns" in capsys.readouterr().out
    agreement = pd.read_parquet(folder / "agreement.parquet")
    expected = queries.agreement_table(filled.tables)
    assert len(agreement) == len(expected)
    merged = agreement.merge(expected, on=configuration_key(filled.tables), suffixes=("", "_expected"))
    np.testing.assert_allclose(merged["agreement_mean"], merged["agreement_mean_expected"])
    one = agreement[agreement["method"] == "december"].iloc[0]
    neurons = pd.read_csv(folder / "assignments.csv")
    neurons = neurons[(neurons["configuration"] == one["configuration"]) & (neurons["seed"] == 2)]
    key = {name: one[name] for name in configuration_key(filled.tables)} | {"seed": 2}
    stored = assignments.assignment_frame(filled.tables, key)
    np.testing.assert_array_equal(neurons["cluster"], stored["cluster"])
    np.testing.assert_array_equal(neurons["unit_id"], stored["unit_id"])
    counts = {path.stem: len(pd.read_parquet(path)) for path in folder.glob("*.parquet")}
    n_neurons = sum(planted_lab.SESSIONS.values())
    assert counts["assignments"] == len(filled.tables.ClusterAssignment()) * n_neurons
    assert counts["consensus_neurons"] == len(expected) * n_neurons
    assert counts["performance_neurons"] == len(filled.tables.TestPerformance()) * n_neurons
    used = {column for path in folder.glob("*.csv") for column in pd.read_csv(path, nrows=0)}
    assert used <= set(COLUMNS)
    assert set(COLUMNS) - used == set()
