"""Squeeze and PartialChannels: where each channel goes."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb = tfp.bijectors


def test_squeeze_moves_blocks_into_channels():
    x = tf.reshape(tf.range(2.0 * 4 * 6 * 3), [2, 4, 6, 3])
    z = tic.Squeeze().inverse(x)
    assert z.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(
        z[1, 1, 2], np.concatenate([x[1, 2 + p, 4 + q] for p in range(2) for q in range(2)])
    )
    assert tic.Squeeze(3).inverse(tf.zeros([9, 6, 1])).shape == (3, 2, 9)
    assert list(tic.Squeeze().inverse_event_shape_tensor([4, 6, 3])) == [2, 3, 12]
    assert list(tic.Squeeze().forward_event_shape_tensor([2, 3, 12])) == [4, 6, 3]


def test_squeeze_of_blocks_of_one_pixel_changes_nothing():
    squeeze, x = tic.Squeeze(block_size=1), tf.random.stateless_normal([2, 4, 4, 3], [0, 0])
    np.testing.assert_array_equal(squeeze.inverse(x), x)
    np.testing.assert_array_equal(squeeze.forward(tf.identity(x)), x)


def test_squeeze_of_an_odd_image():
    words = (
        r"squeeze: every size but the channels must be a multiple of block_size = 2.*\(5, 4, 1\)"
    )
    with pytest.raises(ValueError, match=words):
        tic.Squeeze().inverse(tf.zeros([5, 4, 1]))
    for channels in (3, 6):
        with pytest.raises(ValueError, match="must be a multiple of the 4 pixels in a block"):
            tic.Squeeze().forward(tf.zeros([4, 4, channels]))
    with pytest.raises(ValueError, match="every size but the channels"):
        tic.Squeeze.trainable([5, 4, 1])


def test_partial_channels_transforms_only_the_first():
    layer = tic.PartialChannels(tfb.Scale(2.0), 1)
    z = layer.inverse(tf.ones([2, 4, 4, 3]))
    np.testing.assert_array_equal(z[0, 0, 0], [0.5, 1.0, 1.0])
    with pytest.raises(ValueError, match="needs at least 1 channels"):
        layer.inverse(tf.ones([4, 4, 0]))
    with pytest.raises(ValueError, match="must keep height and width"):
        tic.PartialChannels(tic.Squeeze(), 1).inverse(tf.ones([4, 4, 3]))


def test_partial_channels_have_the_log_det_of_their_own_input():
    gate, x = tic.SLogGate(0.0), tf.random.stateless_normal([2, 4, 4, 3], [0, 0])
    layer = tic.PartialChannels(gate, 2)
    assert not layer.is_constant_jacobian
    assert tic.PartialChannels(tfb.Scale(2.0), 2).is_constant_jacobian
    for direction in ("inverse", "forward"):
        method = f"{direction}_log_det_jacobian"
        expected = getattr(gate, method)(x[..., :2], 3)
        np.testing.assert_allclose(getattr(layer, method)(x, 3), expected, rtol=1e-6)
        getattr(layer, direction)(x)
        np.testing.assert_allclose(getattr(layer, method)(x, 3), expected, rtol=1e-6)


@pytest.mark.parametrize("batch", [[None], [None, None]], ids=str)
def test_the_sizes_of_events_stay_known_if_those_of_the_batch_are_not(batch):
    squeeze = tic.Squeeze()
    shapes = []

    @tf.function(input_signature=[tf.TensorSpec([*batch, 4, 6, 4])])
    def record(x):
        shapes.extend([squeeze.inverse(x).shape.as_list(), squeeze.forward(x).shape.as_list()])

    record.get_concrete_function()
    assert shapes == [[*batch, 2, 3, 16], [*batch, 8, 12, 1]]
