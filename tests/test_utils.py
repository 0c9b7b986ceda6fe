"""Files, seeds and empty batches, where what goes wrong would show only now and then."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_invconv._utils import empty_batches, files, seeds


def test_two_writers_of_one_file_do_not_share_a_temporary_one(tmp_path):
    path = tmp_path / "weights.h5"
    with files.atomic_write(path) as first, files.atomic_write(path) as second:
        assert first != second and first.endswith(path.name) and second.endswith(path.name)
        for i, name in enumerate((first, second)):
            with open(name, "w") as file:
                file.write(str(i))
    assert path.read_text() == "0" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [OSError("full"), tf.errors.ResourceExhaustedError(None, None, "full")]
)
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "weights.h5"
    path.write_text("old")
    with (
        pytest.raises(OSError, match=f"{path} cannot be written: full"),
        files.atomic_write(path) as new,
    ):
        with open(new, "w") as file:
            file.write("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_every_seed_makes_other_numbers():
    of_seeds = [seeds.generator(seed).normal(size=4).tolist() for seed in (0, 1, 256, 2**40)]
    of_seeds += [seeds.stateless_seed(seed).numpy().tolist() for seed in (0, 1, 256, 2**40)]
    of_seeds.append(seeds.spawn_seeds(0, 5))
    assert len(set(map(tuple, of_seeds))) == len(of_seeds) and len(set(of_seeds[-1])) == 5
    np.testing.assert_array_equal(seeds.stateless_seed(np.int64(256)), seeds.stateless_seed(256))


def test_an_empty_batch_is_padded_and_no_other():
    assert empty_batches.pad_empty_batch(None) is None
    for count, padded in ((0, 1), (1, 1), (3, 3)):
        x = empty_batches.pad_empty_batch(tf.ones([count, 2, 3]))
        assert x.shape == [padded, 2, 3]
        np.testing.assert_array_equal(x[:count], np.ones([count, 2, 3]))
