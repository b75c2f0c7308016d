"""Compares two published models of the same neurons, one with a linear and one with a nonlinear core.

SENSORIUM 2022 published trained models of mouse V1 (MIT licence, github.com/sinzlab/sensorium, folder
``model_tutorial``): among them one with a nonlinear and one with a linear core, of the same 7,776 neurons. Nothing is
trained here, and there is no recording: what the cores' channels do is measured on noise with the spectrum of natural
images.

    python examples/two_published_models.py sensorium_sota_model.pth sensorium_ln_model.pth --output answer

Each space is a study of its own, with a report: the readout vectors, and the directions of the functional embeddings.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor, nn

from december_plugin.answer import Study, study_readouts
from december_plugin.embeddings import feature_covariance
from december_plugin.embeddings.probes import noise_probes
from december_plugin.embeddings.readout_vectors import readout_embeddings
from december_plugin.imports import read_checkpoint
from december_plugin.imports.architecture import data_info_of, fitted_model
from december_plugin.models.gaussian import stacked_core_gaussian_readout

INPUT_SHAPE = (1, 36, 64)
MODEL = f"{stacked_core_gaussian_readout.__module__}.{stacked_core_gaussian_readout.__name__}"
NONLINEAR, LINEAR = "nonlinear core", "linear core"
SETTINGS = {NONLINEAR: {}, LINEAR: {"layers": 3, "linear": True}}
# Depth-separable convolutions have had biases since neuralpredictors 0.3: of older weights they are zero.
OLDER_WITHOUT = ("core.features.*.ds_conv.*.bias",)
N_CLUSTERS = (3, 5, 8)
SHOWN = ["method", "n_clusters", "agreement_mean", "null_low", "null_high", "p_value"]


def published_model(path: Path, settings: dict[str, object]) -> nn.Module:
    """Return a published model with its weights, in evaluation mode."""
    state_dict = read_checkpoint(path)
    counts = {key: own.stop - own.start for key, own in readout_embeddings(state_dict).sessions.items()}
    model, _ = fitted_model(
        state_dict,
        name=path.stem,
        fn=MODEL,
        config=settings,
        data_info=data_info_of(state_dict, counts, INPUT_SHAPE),
        seed=0,
        missing_as_zero=OLDER_WITHOUT,
    )
    return model


def studies(models: dict[str, nn.Module], probes: Tensor, **settings: object) -> dict[str, Study]:
    """Return the study in each space, by what is compared."""
    covariances = [feature_covariance(model, probes) for model in models.values()]
    found = [study_readouts(models, **settings), study_readouts(models, covariances=covariances, **settings)]
    return {study.settings.vectors_in_words: study for study in found}


def compared(found: dict[str, Study]) -> pd.DataFrame:
    """Return the agreement of the models by number of clusters and space, beside what surrogates reach."""
    key = ["method", "n_clusters", "agreement_mean"]
    frames = [
        study.agreement[key].merge(study.nulls, on=key, how="left").reindex(columns=SHOWN).assign(compared=name)
        for name, study in found.items()
    ]
    return pd.concat(frames).sort_values(["method", "n_clusters"], kind="stable", ignore_index=True)


def main(words: Sequence[str] | None = None) -> None:
    """Compare the two models, print what was found, and write a report for each space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nonlinear", type=Path, help="weights of the model with the nonlinear core")
    parser.add_argument("linear", type=Path, help="weights of the model with the linear core")
    parser.add_argument("--output", type=Path, default=Path("answer"), help="folder of the reports")
    parser.add_argument("--n-clusters", type=int, nargs="+", default=N_CLUSTERS)
    parser.add_argument("--methods", nargs="+", default=["kmeans"])
    parser.add_argument("--null-draws", type=int, default=20, help="surrogates without clusters; 0 for none")
    parser.add_argument("--null", default="elliptical", metavar="NAME", help="kind of surrogates, such as combined")
    parser.add_argument("--probes", type=int, default=500, help="number of noise images")
    parser.add_argument("--jobs", type=int, default=-1)
    args = parser.parse_args(words)
    models = {
        NONLINEAR: published_model(args.nonlinear, SETTINGS[NONLINEAR]),
        LINEAR: published_model(args.linear, SETTINGS[LINEAR]),
    }
    found = studies(
        models,
        noise_probes(INPUT_SHAPE, n=args.probes),
        n_clusters=args.n_clusters,
        methods=args.methods,
        null_draws=args.null_draws,
        null_method=args.null,
        n_jobs=args.jobs,
    )
    print(compared(found).round(3).to_string(index=False))
    args.output.mkdir(parents=True, exist_ok=True)
    for name, study in found.items():
        cosines, cka = study.similarity.loc[0, ["cosine_correlation", "linear_cka"]]
        print(f"\n{name}: correlation between the models of the cosines between neurons {cosines:.2f}, CKA {cka:.2f}")
        print(study.answer.headline)
        title = f"Two published models, compared by {name}"
        print("report", study.write_report(args.output / f"{name.replace(' ', '-')}.html", title=title))


if __name__ == "__main__":
    main()
