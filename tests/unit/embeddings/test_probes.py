"""Probe stimuli: their spectrum, their normalisation, channels of behaviour, folders of images."""

import warnings

import numpy as np
import pytest
from PIL import Image

from december_plugin.embeddings import image_probes, noise_probes
from december_plugin.errors import EmbeddingError, SettingsError

RNG = np.random.default_rng(0)


class TestNoise:
    def test_has_the_spectrum_of_natural_images(self):
        probes = noise_probes((1, 32, 32), n=200).numpy()
        assert probes.shape == (200, 1, 32, 32)
        assert probes.dtype == np.float32
        assert probes.std() == pytest.approx(1, abs=0.05)
        power = np.mean(np.abs(np.fft.fft2(probes[:, 0])) ** 2, axis=0)
        assert power[0, 2] / power[0, 8] == pytest.approx((8 / 2) ** 2, rel=0.3)  # amplitude 1/f
        assert power[4, 0] / power[0, 4] == pytest.approx(1, rel=0.3)

    def test_the_same_seed_gives_the_same_bytes(self):
        assert np.array_equal(noise_probes((1, 8, 8), n=3, seed=1), noise_probes((1, 8, 8), n=3, seed=1))
        assert not np.array_equal(noise_probes((1, 8, 8), n=3, seed=1), noise_probes((1, 8, 8), n=3, seed=2))

    def test_frames_of_movies_follow_one_another(self):
        clips = noise_probes((2, 6, 16, 16), n=40).numpy()
        assert clips.shape == (40, 2, 6, 16, 16)
        assert np.corrcoef(clips[:, :, 2].ravel(), clips[:, :, 3].ravel())[0, 1] == pytest.approx(0.9, abs=0.02)
        assert np.mean(clips[:, 0] * clips[:, 1]) == pytest.approx(0, abs=0.05)
        assert clips[:, :, -1].std() == pytest.approx(1, abs=0.05)

    def test_behaviour_stays_at_its_mean_with_a_warning(self):
        message = (
            r"3 channel\(s\) of behaviour stay at 1.5, 0, 0.25 in all probes: what is computed from them says nothing"
        )
        with pytest.warns(UserWarning, match=message):
            probes = noise_probes((4, 8, 9), n=2, image_channels=1, behavior=[1.5, 0.0, 0.25]).numpy()
        np.testing.assert_array_equal(
            probes[:, 1:], np.broadcast_to(np.reshape([1.5, 0, 0.25], (3, 1, 1)), (2, 3, 8, 9))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            noise_probes((4, 8, 9), n=2)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"shape": (8, 8)}, r"shape is \(8, 8\); it must be that of a model's input, \(channels, height, width\)"),
            ({"shape": (1, 8, 1)}, "of at least 2 x 2 pixels"),
            ({"image_channels": 2}, "image_channels is 2, more than the 1 channels of the input"),
            ({"behavior": [1.0]}, r"behavior has 1 value\(s\), but the input has 0 channel\(s\) of behaviour"),
        ],
    )
    def test_wrong_settings(self, settings, message):
        with pytest.raises(SettingsError, match=message):
            noise_probes(**{"shape": (1, 8, 8), **settings})


class TestImages:
    @pytest.fixture
    def folder(self, tmp_path):
        grey = RNG.integers(0, 256, size=(3, 6, 7), dtype=np.uint8)
        Image.fromarray(grey[0]).save(tmp_path / "a.png")
        Image.fromarray(grey[1]).save(tmp_path / "b.tif")
        np.save(tmp_path / "c.npy", grey[2])
        (tmp_path / "notes.txt").write_text("not an image")
        return tmp_path, grey

    def test_are_z_scored_in_the_order_of_their_names(self, folder):
        path, grey = folder
        expected = (grey - grey.mean()) / grey.std()
        np.testing.assert_allclose(image_probes(path, (1, 6, 7))[:, 0], expected, rtol=1e-5, atol=1e-6)
        expected = (grey[:2] - 100.0) / 50
        np.testing.assert_allclose(image_probes(path, (1, 6, 7), n=2, mean=100, std=50)[:, 0], expected, rtol=1e-5)

    def test_of_colour(self, tmp_path):
        colour = RNG.integers(0, 256, size=(2, 6, 7, 3), dtype=np.uint8)
        for index, image in enumerate(colour):
            Image.fromarray(image).save(tmp_path / f"{index}.png")
        with pytest.warns(UserWarning, match=r"1 channel\(s\) of behaviour stay at 0 in all probes"):
            probes = image_probes(tmp_path, (4, 6, 7), image_channels=3, mean=0, std=1).numpy()
        np.testing.assert_array_equal(probes[:, :3], np.moveaxis(colour, 3, 1))

    def test_of_another_size(self, folder):
        message = r"a.png has \(channels, height, width\) \(1, 6, 7\), but the model takes \(1, 7, 6\); scale or crop"
        with pytest.raises(EmbeddingError, match=message):
            image_probes(folder[0], (1, 7, 6))

    def test_that_are_none(self, folder, tmp_path):
        with pytest.raises(EmbeddingError, match=r"holds 1 image\(s\) to probe models with; at least two are needed"):
            image_probes(folder[0], (1, 6, 7), n=1)
        with pytest.raises(EmbeddingError, match="missing is not a folder of probe images"):
            image_probes(tmp_path / "missing", (1, 6, 7))
        (tmp_path / "a.png").write_bytes(b"nothing")
        with pytest.raises(EmbeddingError, match=r"a.png cannot be read as an image: "):
            image_probes(tmp_path, (1, 6, 7))
        with pytest.raises(SettingsError, match=r"shape is \(1, 5, 6, 7\); images have \(channels, height, width\)"):
            image_probes(tmp_path, (1, 5, 6, 7))

    def test_that_are_all_the_same(self, tmp_path):
        for name in "ab":
            np.save(tmp_path / f"{name}.npy", np.ones((6, 7)))
        with pytest.raises(EmbeddingError, match="are the same; they cannot be z-scored"):
            image_probes(tmp_path, (1, 6, 7))

    def test_deep_gray_is_not_cut_off(self, tmp_path):
        deep = RNG.integers(0, 2**16, size=(3, 6, 7), dtype=np.uint16)
        for at, image in enumerate(deep):
            Image.fromarray(image).save(tmp_path / f"{at}.png")
        expected = (deep - deep.mean()) / deep.std()
        np.testing.assert_allclose(image_probes(tmp_path, (1, 6, 7))[:, 0], expected, atol=1e-5)
        np.testing.assert_allclose(image_probes(tmp_path, (3, 6, 7))[:, 2], expected, atol=1e-5)

    def test_arrays_that_are_no_images(self, tmp_path):
        for name in ("a", "b"):
            np.save(tmp_path / f"{name}.npy", RNG.normal(size=(6, 7)))
        np.save(tmp_path / "b.npy", np.full((6, 7), np.nan))
        with pytest.raises(EmbeddingError, match=r"b.npy holds NaN or infinite values"):
            image_probes(tmp_path, (1, 6, 7))
        np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
        with pytest.raises(EmbeddingError, match=r"b.npy cannot be read as an array"):
            image_probes(tmp_path, (1, 6, 7))
