"""The Glows that a user would take instead, of TFP and of normflows, on images of whole numbers.

Each framework is imported where it is used, so that neither needs the other.
"""

import functools


def tfb_glow(event_shape, levels, depth, width, num_values):
    """A distribution of images `[H, W, C]` whose values, noise included, go from 0 to num_values.

    Its networks are made, and its ActNorms fitted, by the first images that it sees.
    """
    import tensorflow_probability as tfp

    tfb, tfd = tfp.bijectors, tfp.distributions
    glow = tfb.Glow(
        event_shape,
        num_glow_blocks=levels,
        num_steps_per_block=depth,
        coupling_bijector_fn=functools.partial(
            tfb.GlowDefaultNetwork, num_hidden=width, kernel_shape=3
        ),
        exit_bijector_fn=tfb.GlowDefaultExitNetwork,
    )
    latent = tfd.Sample(tfd.Normal(0.0, 1.0), glow.inverse_event_shape(event_shape))
    pixels = tfb.Chain([tfb.Scale(float(num_values)), tfb.Shift(0.5), glow])
    return tfd.TransformedDistribution(latent, pixels)


def normflows_glow(event_shape, levels, depth, width):
    """A PyTorch module for images `[C, H, W]` from -0.5 to 0.5."""
    import normflows

    height, image_width, channels = event_shape
    bases, flows, merges = [], [], []
    for level in range(levels, 0, -1):  # as normflows has it: from the latent on
        squeezed = channels * 2 ** (level + 1)
        blocks = [normflows.flows.GlowBlock(squeezed, width) for _ in range(depth)]
        flows.append([*blocks, normflows.flows.Squeeze()])
        # All channels leave the last level, half of them each one before.
        out = squeezed if level == levels else squeezed // 2
        latent = (out, height // 2**level, image_width // 2**level)
        bases.append(normflows.distributions.DiagGaussian(latent))
        if level < levels:
            merges.append(normflows.flows.Merge())
    return normflows.MultiscaleFlow(bases, flows, merges)
