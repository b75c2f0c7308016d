"""What the fields of a batch are taken for."""

import pytest
import torch

from december_plugin.embeddings.batches import split_batch

A, B, C = torch.zeros(2, 1), torch.ones(2, 3), torch.full((2, 2), 2.0)


@pytest.mark.parametrize(
    ("batch", "inputs", "responses", "extras"),
    [
        ((A, B), A, B, {}),
        ((A,), A, None, {}),
        ({"images": A, "responses": B, "behavior": C}, A, B, {"behavior": C}),
        ({"behavior": C, "videos": A, "targets": B}, A, B, {"behavior": C}),
        ({"stimuli": A, "spikes": B}, A, B, {}),
        ({"images": A, "behavior": C}, A, None, {"behavior": C}),  # no responses, which are not needed
        ({"behavior": C, "images": A}, A, None, {"behavior": C}),
    ],
)
def test_inputs_and_responses_and_what_models_take_beside_them(batch, inputs, responses, extras):
    found = split_batch(batch)
    assert found[0] is inputs
    assert found[1] is responses
    assert found[2] == extras
