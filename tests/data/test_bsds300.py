"""The BSDS300 patches, made of small images."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import put, put_archive, stored, values

import tfp_invconv as tic

tfds = pytest.importorskip("tensorflow_datasets")

from tfp_invconv.data import _builders, bsds300_patches, load_vectors  # noqa: E402

tfd = tfp.distributions


class Bsds300Gray(_builders.Builder, skip_registration=True):
    """Random 9x9 images, in no order, whose numbers sort differently as strings."""

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 1), dtype=np.uint8),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        numbered = list(enumerate(grey_images(split)))
        for number, image in numbered[1::2] + numbered[::2]:
            yield number, {"id": str(number), "image": image[..., np.newaxis]}


def grey_images(split):
    rng = np.random.default_rng(["train", "test"].index(split))
    return rng.integers(0, 256, size=[20 if split == "train" else 3, 9, 9], dtype=np.uint8)


@pytest.fixture
def small_bsds(monkeypatch):
    monkeypatch.setattr(bsds300_patches, "_NUM_IMAGES", {"train": 20, "test": 3})
    counts = {"train": 1000, "validation": 100, "test": 200}
    monkeypatch.setattr(bsds300_patches, "_NUM_PATCHES", counts)


def test_patches_follow_the_recipe(tmp_path, small_bsds):
    Bsds300Gray(data_dir=tmp_path).download_and_prepare()
    parts = stored("bsds300_patches", tmp_path)
    assert [part.shape for part in parts] == [(1000, 63), (100, 63), (200, 63)]
    train, test = grey_images("train"), grey_images("test")
    is_validation = np.arange(20) % 10 == 0
    for vectors, images in zip(
        parts, (train[~is_validation], train[is_validation], test), strict=True
    ):
        patches = np.lib.stride_tricks.sliding_window_view(images, (1, 8, 8)).reshape(-1, 64)
        # The last pixel is minus the sum of the others.
        pixels = 256 * np.append(vectors, -vectors.sum(axis=1, keepdims=True), axis=1)
        spread = np.ptp(pixels[:, np.newaxis] - patches.astype(np.float32), axis=2)
        # Each is one patch and noise in [0, 1), and every place in every image occurs.
        assert ((spread < 1).sum(axis=1) == 1).all()
        assert (spread < 1).any(axis=0).all()
        chosen = np.argmin(spread, axis=1)
        assert (chosen[1:] // 4 == chosen[:-1] // 4).any()  # not the images in turn
        noise = pixels - patches[chosen]
        np.testing.assert_allclose(noise.var(axis=1).mean(), 63 / 64 / 12, rtol=0.05)


def test_patches_of_the_archive(tmp_path, small_bsds):
    """Of images of one colour each, whose luma is known."""
    colours = {f"BSDS300/images/train/{n}.jpg": [10 * n, 255 - 10 * n, n] for n in range(20)}
    colours |= {f"BSDS300/images/test/{n}.jpg": [n, 0, 200] for n in (30, 4, 100)}
    members = {
        name: tf.io.encode_jpeg(np.full([9, 12, 3], colour, np.uint8), quality=100).numpy()
        for name, colour in reversed(colours.items())
    }
    members["BSDS300/iids_train.txt"] = b"0\n"
    path = tmp_path / "downloads" / "manual" / "BSDS300-images.tgz"
    put_archive(path, members)
    assert len(values(load_vectors("bsds300_patches", "test", data_dir=tmp_path))) == 200
    images = bsds300_patches._archived_images(path)
    assert [len(images[split]) for split in ("train", "test")] == [20, 3]
    expected = [np.dot(colour, [0.299, 0.587, 0.114]) for colour in list(colours.values())[:20]]
    np.testing.assert_allclose([image[4, 4] for image in images["train"]], expected, atol=2)
    np.testing.assert_allclose([image[4, 4] for image in images["test"]], [24, 32, 53], atol=2)
    assert images["train"][0].shape == (9, 12)

    put_archive(path, dict(list(members.items())[1:]))
    builder = tfds.builder("bsds300_patches", data_dir=tmp_path / "other")
    config = tfds.download.DownloadConfig(manual_dir=path.parent)
    with pytest.raises(ValueError, match="has 3 images in 'test', but there are 2"):
        builder.download_and_prepare(download_config=config)


def test_wrong_archive(tmp_path):
    put(tmp_path / "downloads" / "manual", {"BSDS300-images.tgz": b"?"})
    builder = tfds.builder("bsds300_patches", data_dir=tmp_path)
    with pytest.raises(ValueError, match="images.tgz is no whole archive"):
        builder.download_and_prepare()


def test_every_place_of_an_oblong_image_occurs():
    image = np.random.default_rng(0).integers(0, 256, size=[8, 13], dtype=np.uint8)
    vectors = bsds300_patches._vectors([image], 200, seed=0)
    windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8)).reshape(-1, 64) / 256
    windows = (windows - windows.mean(1, keepdims=True))[:, :63]
    places = np.argmin(np.abs(vectors[:, np.newaxis] - windows).max(-1), axis=1)
    assert set(places) == set(range(6))


def test_density_is_in_units_of_the_vectors():
    """Images of one grey leave the noise, whose Gaussian is known in closed form."""
    vectors = bsds300_patches._vectors([np.full([9, 9], 7, np.uint8)], 20_000, seed=0)
    vectors = vectors.astype(np.float64)
    # The covariance (I - 1/64) / 12 / 256**2 has 63 times log 256 in its determinant.
    expected = 63 * np.log(256) + np.log(8) - 63 / 2 * np.log(2 * np.pi * np.e / 12)

    def gaussian(x):
        factor = np.linalg.cholesky(np.cov(x, rowvar=False))
        return tfd.MultivariateNormalTriL(x.mean(axis=0), factor)

    by_gaussian = tf.reduce_mean(gaussian(vectors).log_prob(vectors))
    np.testing.assert_allclose(by_gaussian, expected, atol=0.1)
    # A flow that divides by the deviations first says the same of the same vectors.
    deviation = vectors.std(axis=0)
    scaling = tic.ActNorm(np.zeros(63), -np.log(deviation))
    flow = tfd.TransformedDistribution(gaussian(vectors / deviation), scaling)
    by_flow = tf.reduce_mean(flow.log_prob(vectors))
    np.testing.assert_allclose(by_flow, by_gaussian, rtol=1e-9)
