"""Every block of the README and of the documentation is checked by one test; here those that need no server."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from december_plugin.cli import build_parser
from december_plugin.results.agreement_text import agreement_text
from december_plugin.sweeps.parse import SweepError, load_sweep, parse_evaluations, parse_sweep
from helpers import pages

README_SWEEP = yaml.safe_load(next(piece.text for piece in pages.pieces("README.md") if piece.language == "yaml"))

# What cannot be run here, and is held against what it names.
MAKE = pages.claim(  # installs packages, needs root, or a GPU
    ("README.md", "CONTRIBUTING.md", "docs/getting-started.md", "docs/performance.md"), "bash", starting="make "
)
SCRIPTS = pages.claim(  # hours of computing, a GPU, or published checkpoints
    ("docs/performance.md", "docs/validation.md", "docs/you-already-have-trained-models.md"), "bash", starting="python "
)
INSTALLING = pages.claim(  # from an index; test_packaging.py installs what is built
    ("README.md", "docs/getting-started.md", "docs/running-on-your-gpus.md", "docs/sharing-results.md"),
    "bash",
    starting=("pip install ", "python3 -m venv", ". ~/"),
)
DUMP, DUMP_OF_DOCKER = pages.claim("docs/operations.md", "sh")  # of MySQL
(BROWSER,) = pages.claim("docs/running-on-your-gpus.md", "bash", starting="tensorboard ")  # serves until it is ended
(LIVE,) = pages.claim("docs/sweeps.md", "bash", starting="december status --live")  # needs a terminal
(CRONTAB,) = pages.claim("docs/operations.md", "text")

TABLES = pages.claim("docs/getting-started.md", "text")
(MISTAKE,) = pages.claim("docs/experiments.md", "text")
SWEEPS = pages.claim(
    ("docs/experiments.md", "docs/functional-embeddings.md", "docs/tutorials/rotation-equivariant-models.md"), "yaml"
)
EVALUATIONS = pages.claim(("docs/are-there-types.md", "docs/maximally-exciting-images.md"), "yaml")
TREES = pages.claim(("docs/index.md", "docs/api/index.md"), "{toctree}")
INCLUDED = pages.claim(("docs/changelog.md", "docs/contributing.md"), "{include}")


def test_every_block_is_claimed_once() -> None:
    claimed: dict[pages.Piece, list[str]] = {piece: [] for page in pages.PAGES for piece in pages.pieces(page)}
    assert len(claimed) > 200
    for claim in pages.claims():
        for piece in claim.pieces:
            claimed[piece].append(claim.where)
    assert {str(piece): tests for piece, tests in claimed.items() if len(tests) != 1} == {}


# --- commands: words, options and files


def test_shell_blocks_are_of_the_shell() -> None:
    commands = [piece for page in pages.PAGES for piece in pages.pieces(page) if piece.language in pages.SHELLS]
    for page in {piece.page for piece in commands}:
        lines = "\n".join(piece.text for piece in commands if piece.page == page)
        done = subprocess.run(["bash", "-n"], input=lines, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), page


def test_commands_have_options_that_exist() -> None:
    commands = [piece for page in pages.PAGES for piece in pages.pieces(page) if piece.language in pages.SHELLS]
    parser = build_parser()
    for piece in commands:
        words = [word for word in piece.words if not re.match(r"[A-Z_]+=", word)]
        if words[0] == "december":
            parser.parse_args(words[1:])
    parser.parse_args([*shlex.split(CRONTAB.text)[6:]])


def test_commands_in_sentences_exist() -> None:
    text = "\n".join(re.sub(r"^```.*?^```$", "", pages.text_of(page), flags=re.S | re.M) for page in pages.PAGES)
    spans = {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)}
    commands = sorted(span for span in spans if span.startswith("december ") and not span.endswith(":"))
    assert len(commands) > 50
    parser, wrong = build_parser(), []
    for command in commands:
        actions, words = parser._actions, command.split()[1:]
        for word in words:  # the parser of the command, or of its action
            choices: Any = next((each.choices for each in actions if isinstance(each.choices, dict)), {})
            if word not in choices:
                break
            actions = choices[word]._actions
        known = {option for action in actions for option in action.option_strings}
        wrong += [command] * (actions is parser._actions)
        wrong += [f"{command}: {word}" for word in words if word.startswith("--") and word not in known]
    assert wrong == []


def exists(path: str) -> bool:
    """Whether a dotted path leads to a module, or to something in one."""
    module, names = path, list[str]()
    while True:
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, name = module.rpartition(".")
            names.insert(0, name)
            continue
        for name in names:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True


def test_names_in_sentences_exist() -> None:
    text = "\n".join(re.sub(r"^```.*?^```$", "", pages.text_of(page), flags=re.S | re.M) for page in pages.PAGES)
    spans = [span for span in re.findall(r"`([^`]+)`", text) if "/" not in span and not span.endswith(".json")]
    whole = {path for span in spans for path in re.findall(r"\bdecember_plugin(?:\.\w+)+", span)}
    rooms = "|".join(("bundles", "insilico", "plots", "results", "rotation", "simulate"))
    short = {path for span in spans for path in re.findall(rf"(?<![\w.])(?:{rooms})\.\w+", span)}
    assert len(whole) > 15
    assert len(short) > 20
    assert sorted(path for path in (*whole, *(f"december_plugin.{path}" for path in short)) if not exists(path)) == []


@pytest.mark.parametrize("piece", MAKE, ids=str)
def test_make_has_the_target(piece: pages.Piece) -> None:
    subprocess.run(["make", "-n", *piece.words[1:]], cwd=pages.ROOT, check=True, capture_output=True)


def scripts_of_the_pages() -> list[list[str]]:
    """Return the words after ``python`` of what the pages run from this repository, in blocks and in sentences."""
    sentences = "\n".join(re.sub(r"^```.*?^```$", "", pages.text_of(page), flags=re.S | re.M) for page in pages.PAGES)
    spans = re.findall(r"`python ((?:-m )?(?:benchmarks|studies|examples)[^`]+)`", sentences)
    return [*(piece.words[1:] for piece in SCRIPTS), *map(str.split, spans)]


def test_scripts_and_their_options_exist() -> None:
    scripts = scripts_of_the_pages()
    for piece in MAKE:  # whose variable has options of the same script
        scripts += [["-m", "benchmarks.gpu", *word[9:].split()] for word in piece.words if word.startswith("GPU_ARGS=")]
    assert len(scripts) > 15
    for first, *words in scripts:
        files = [pages.ROOT / first]
        if first == "-m":
            files = sorted((pages.ROOT / words.pop(0).replace(".", "/")).glob("*.py"))
        texts = [file.read_text(encoding="utf-8") for file in files]  # an error if there is none
        known = {"--help"} | {option for text in texts for option in re.findall(r"\"(--[a-z-]+)\"", text)}
        assert {word for word in words if word.startswith("--")} <= known, (first, words)


def test_extras_exist() -> None:
    setup = (pages.ROOT / "setup.py").read_text(encoding="utf-8")
    (extras,) = [
        node.value
        for node in ast.walk(ast.parse(setup))
        if isinstance(node, ast.keyword) and node.arg == "extras_require" and isinstance(node.value, ast.Dict)
    ]
    known = {key.value for key in extras.keys if isinstance(key, ast.Constant)}
    named = {extra for piece in INSTALLING for extra in re.findall(r"\[(\w+)\]", piece.text)}
    assert {"slurm", "tensorboard", "anndata"} == named
    assert named <= known
    for piece in INSTALLING:
        if "-c" in piece.words:
            assert (pages.ROOT / piece.words[piece.words.index("-c") + 1]).exists()
    begun, activated = (piece.words[-1] for piece in INSTALLING if "~/" in piece.text)
    assert activated == f"{begun}/bin/activate"


def test_dumps_are_of_the_services_and_schemas() -> None:
    compose = yaml.safe_load((pages.ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    _, _, action, service, *words = DUMP_OF_DOCKER.words
    (secret,) = re.findall(r"/run/secrets/(\w+)", DUMP_OF_DOCKER.text)
    assert action == "exec"
    assert secret in compose["services"][service]["secrets"]
    inner = words[words.index("-c") + 1].split(" exec ")[1]
    assert shlex.split(inner) == [word for word in DUMP.words[:-1] if word not in ("--no-tablespaces", ">december.sql")]


def test_tensorboard_shows_the_folder_of_the_pool() -> None:
    (pool,) = [piece for piece in pages.pieces(BROWSER.page) if "--tensorboard" in piece.words]
    assert BROWSER.words[-1] == pool.words[-1]


def test_live_status_is_the_last_that_needs_a_terminal() -> None:
    assert build_parser().parse_args(LIVE.words[1:]).live


# --- what is shown


def rows_of(table: str) -> pd.DataFrame:
    """Read the rows of a table that the demonstration prints."""
    found = []
    number, mean_sd = r"\s+([\d.]+)", r"\s+([\d.]+) ± ([\d.]+)"
    pattern = (
        rf"\s+(\d+)  (\S+){mean_sd}\*?\s+(\d+){mean_sd}{number}{number} /{number}{number}((?:{mean_sd})?){mean_sd}"
    )
    for line in table.splitlines()[2:]:
        if not line:
            continue
        match = re.fullmatch(pattern, line)
        assert match, line
        k, label, mean, sd, pairs, null, null_sd, p, valleys, null_valleys, valleys_p, types, of_types, types_sd = (
            match.groups()[:14]
        )
        test, test_sd = match.groups()[14:]
        found.append(
            {
                "n_clusters": int(k),
                "label": label,
                "agreement_mean": float(mean),
                "agreement_sd": float(sd),
                "n_pairs": int(pairs),
                "null_mean": float(null),
                "null_sd": float(null_sd),
                "p_value": float(p),
                "valleys_mean": float(valleys),
                "null_valleys_mean": float(null_valleys),
                "valleys_p_value": float(valleys_p),
                "types_agreement_mean": float(of_types) if types else float("nan"),
                "types_agreement_sd": float(types_sd) if types else float("nan"),
                "test_correlation_mean": float(test),
                "test_correlation_sd": float(test_sd),
            }
        )
    return pd.DataFrame(found)


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_tables_of_the_demonstration_are_as_it_prints_them(table: pages.Piece) -> None:
    rows = rows_of(table.text)
    assert len(rows) == 14
    shown = agreement_text(rows, types_name="planted types")
    assert shown[: len(table.text)] == table.text
    # What the page says of them.
    typed = "planted types" in table.text
    assert (rows["types_agreement_mean"].notna()).all() == typed
    beaten = rows["p_value"] <= 0.05
    assert beaten[rows["n_clusters"] > 2].all() if typed else not beaten.any()


def test_the_mistake_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message, line, _ = MISTAKE.text.splitlines()
    number, shown = line.split(" | ")
    lines = ["seeds: [1]"]
    for kind in ("datasets", "models"):
        (entry, *_) = README_SWEEP[kind]
        lines += [f"{kind}:", f"  - {yaml.safe_dump(entry, default_flow_style=True, width=1000)}".rstrip()]
    lines += ["trainers:", "  - fn: december_plugin.trainers.baseline_trainer"]
    lines += [f"# {at}" for at in range(len(lines) + 1, int(number) - 1)]
    lines += ["  - fn: december_plugin.trainers.baseline_trainer", shown]
    Path("sweep.yaml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SweepError) as caught:
        load_sweep("sweep.yaml")
    assert message.startswith("sweep.yaml:18:")
    assert MISTAKE.text.rstrip() in str(caught.value)


# --- files


@pytest.mark.parametrize("block", SWEEPS, ids=str)
def test_parts_of_sweeps_are_valid(block: pages.Piece) -> None:
    own = yaml.safe_load(block.text)
    sweep = parse_sweep({**README_SWEEP, **own})
    assert sweep.n_trainings > 0
    if "models" in own:
        assert [entry.fn for entry in sweep.models] == [entry["fn"] for entry in own["models"]]


@pytest.mark.parametrize("block", EVALUATIONS, ids=str)
def test_evaluations_are_valid(block: pages.Piece) -> None:
    found = parse_evaluations(yaml.safe_load(block.text))
    assert found.mistakes == []
    assert found.surrogates or (found.cluster_confusion and found.exciting_images)


def test_the_menu_has_every_page() -> None:
    def listed(page: str) -> list[str]:
        return [
            line
            for block in TREES
            if block.page == page
            for line in block.text.splitlines()
            if line and not line.startswith(":")
        ]

    docs = {page.removeprefix("docs/").removesuffix(".md") for page in pages.PAGES if page.startswith("docs/")}
    assert Counter(listed("docs/index.md")) == Counter(docs - {"index"})
    listed_rooms = runpy.run_path(str(pages.ROOT / "docs" / "conf.py"))["PUBLIC"]
    assert listed("docs/api/index.md") == [path for path, _ in listed_rooms]


@pytest.mark.parametrize("block", INCLUDED, ids=str)
def test_included_files_exist(block: pages.Piece) -> None:
    (name,) = re.findall(r"^```\{include\} (\S+)$", pages.text_of(block.page), flags=re.M)
    assert (pages.ROOT / block.page).parent.joinpath(name).is_file()
