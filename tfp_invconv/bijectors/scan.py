"""Equal steps of a flow as one step in a loop."""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks, seeds
from tfp_invconv.bijectors import _base, _conditions, _loops, _reconstruction, _stacking
from tfp_invconv.bijectors import _stacked_networks as stacked_networks
from tfp_invconv.bijectors._base import ValueAndLogDetBijector

tfb = tfp.bijectors


class Scan(ValueAndLogDetBijector):
    """A chain of steps alike in structure: their parameters stacked, one of them in a loop.

    With the steps b_1, ..., b_n, in the order in which data pass them,

    ```none
    inverse (data to latent):  z = (b_n^-1 o ... o b_1^-1)(x)
    forward (latent to data):  x = (b_1 o ... o b_n)(z)
    inverse_log_det_jacobian:  the sum of the steps'
    ```

    It equals `tfb.Chain([b_1, ..., b_n])`, but a graph holds one step, whatever n is, and a
    training or a saved model n times fewer, larger variables. So a deep flow starts at once.

    *Steps*: any bijectors that keep the shape of events and are described by their constructors'
    arguments: the layers here, TFP's own, chains and inverses of them, Keras networks in
    couplings. `scan[i]` is a step with the values that its parameters have now.

    *Randomness and state*: each step has its own, as its variables: a dropout differs from step to
    step and from call to call, and moving averages are those of their step.

    *Shapes*: those of a step; a step's parameters may have batch dimensions.

    *Cost*: that of the steps, one after the other, also of gradients. With `remat=True` these keep
    only each step's input, and compute the step again: of a Glow of 3 levels of 8 steps, width 128,
    a training step then takes 27 MB instead of 46 and 1.15 times as long, too much for a default.
    With `remat="reconstruct"` graphs keep nothing of the steps, however many, but under XLA: from
    the last value on they invert each step and compute it again, in 1.3 to 1.5 times as long. The
    steps must not lose digits (see `condition_report`): if their input comes back with an error of
    more than 1e-4 of the batch's largest number, the gradient raises a
    `tf.errors.InvalidArgumentError`, or is NaN where XLA drops errors. Both allow only first
    derivatives in reverse mode.

    *Loop or not*: one or two steps, steps in eager mode, and steps that XLA compiles for a CPU,
    which runs convolutions in a loop many times slower than outside, run one after the other in the
    graph; others in a `tf.while_loop`. `unroll` decides otherwise.

    *Invertible* if the steps are.

    #### Examples

    >>> import tensorflow as tf
    >>> import tensorflow_probability as tfp
    >>> import tfp_invconv as tic
    >>> def step(seed):
    ...     conv = tic.EmergingConv.trainable([8, 8, 4], seed=seed)
    ...     return tfp.bijectors.Chain([tic.ActNorm.trainable([8, 8, 4]), conv])
    >>> scan = tic.Scan.trainable(step, 16, seed=0)
    >>> scan.inverse(tf.ones([10, 8, 8, 4])).shape
    TensorShape([10, 8, 8, 4])
    >>> [variable.shape[0] for variable in scan.trainable_variables]
    [16, 16, 16, 16, 16, 16]
    >>> scan[3].name, len(scan)
    ('chain_of_act_norm_of_emerging_conv', 16)

    #### References

    The idea is that of `flowjax.bijections.Scan` and of lingvo's repeat layer.
    """

    def __init__(
        self,
        bijector: tfp.bijectors.Bijector,
        length: int,
        remat: bool | str = False,
        unroll: bool | None = None,
        validate_args: bool = False,
        name: str = "scan",
    ) -> None:
        """Makes the layer from its arguments, which become attributes. See `from_steps` as well.

        Args:
          bijector: a step whose variables and deferred tensors have a first axis of size `length`,
            one slice for each step. Constants are the same in all steps.
          length: number of steps, a positive int.
          remat: whether to recompute each step for its gradient, which saves memory;
            "reconstruct" to recompute its input, too, which saves most.
          unroll: whether to put the steps into the graph one by one; None to decide it where it
            runs, see above.
          validate_args: not used: shapes are always checked, and the steps check the rest.
          name: name of the layer.

        Raises:
          ValueError: if `length` is no positive int, a parameter has not that many slices, the
            step changes the shape of its input, or is to be reconstructed and inverts by iteration.
        """
        parameters = dict(locals())
        checks.check_positive_integer(length, "length", name)
        _reconstruction.check_remat(remat, bijector, name)
        self.bijector, self.length = bijector, length
        self.remat, self.unroll = remat, unroll
        parts = _stacking.parameters_of(bijector)
        stacks = [p for p in parts if isinstance(p, stacked_networks.StackedNetwork)]
        in_networks = {id(v): v for stack in stacks for v in stack.variables}
        references = {id(p): p for p in parts if _base.is_ref(p)} | in_networks
        self._references = self._no_dependency(list(references.values()))
        # What networks may change when they are called in training.
        self._state = self._no_dependency([v for v in in_networks.values() if not v.trainable])
        for reference in self._references:
            if reference.shape[:1] != [length]:
                raise ValueError(
                    f"{name}: a stack of {length} steps needs variables with a first axis of size "
                    f"{length}; got {reference.name} of shape {reference.shape}."
                )
        super().__init__(
            forward_min_event_ndims=bijector.forward_min_event_ndims,
            inverse_min_event_ndims=bijector.inverse_min_event_ndims,
            is_constant_jacobian=bijector.is_constant_jacobian,
            validate_args=validate_args,
            dtype=bijector.dtype,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def trainable(
        cls,
        make_step: Callable[[int], tfp.bijectors.Bijector],
        length: int,
        *,
        seed: int | None = None,
        name: str = "scan",
        **options,
    ) -> "Scan":
        """Makes the steps with a function, each by a seed of its own.

        Args:
          make_step: function of an int, a seed, that returns a bijector.
          length: number of steps, a positive int.
          seed: int, from which those of the steps are made, or None.
          name: name of the layer.
          **options: `remat` and `unroll`, see the constructor.
        """
        checks.check_positive_integer(length, "length", name)
        steps = [make_step(step_seed) for step_seed in seeds.spawn_seeds(seed, length)]
        return cls.from_steps(steps, name=name, **options)

    @classmethod
    def from_steps(
        cls, steps: Sequence[tfp.bijectors.Bijector], *, name: str = "scan", **options
    ) -> "Scan":
        """Makes the layer from bijectors alike in structure, with new variables of their values.

        Args:
          steps: list of bijectors, in the order in which data pass them.
          name: name of the layer.
          **options: `remat` and `unroll`, see the constructor.

        Raises:
          ValueError: if there are none, or they are not alike in structure.
        """
        if not steps:
            raise ValueError(f"{name}: needs at least one step; got none.")
        with tf.init_scope():
            stack = _stacking.stacked(steps, name)
        return cls(stack, len(steps), name=name, **options)

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    @property
    def takes_condition(self) -> bool:
        """Whether the steps take a condition; see `ConditionalChain`."""
        return _conditions.is_conditional(self.bijector)

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        """The i-th step, in the order from the data on, with today's values of its parameters."""
        if not -self.length <= i < self.length:
            raise IndexError(f"{self.name}: has {self.length} steps; got the index {i}.")
        return self._step([tf.convert_to_tensor(r)[i] for r in self._references])[0]

    def __iter__(self):
        # `tfb.Bijector` refuses.
        return (self[i] for i in range(self.length))

    def with_variables(self, order):
        """Yields the steps in an order, with own variables, whose values it keeps at the end."""
        rows = [[]] * self.length
        for i in order:
            slices = ((r, tf.convert_to_tensor(r)[i]) for r in self._references)
            rows[i] = [tf.Variable(t) if isinstance(r, tf.Variable) else t for r, t in slices]
            yield self._step(rows[i])[0]
        for reference, column in zip(self._references, zip(*rows, strict=True), strict=True):
            if isinstance(reference, tf.Variable):
                reference.assign(tf.stack([tf.convert_to_tensor(value) for value in column]))

    def experimental_batch_shape(self, x_event_ndims=None, y_event_ndims=None):
        """The batch shape of one step."""
        return self[0].experimental_batch_shape(x_event_ndims, y_event_ndims)

    def experimental_batch_shape_tensor(self, x_event_ndims=None, y_event_ndims=None):
        """The batch shape of one step."""
        return self[0].experimental_batch_shape_tensor(x_event_ndims, y_event_ndims)

    def _inverse_and_log_det(self, y, **kwargs):
        return self._run("inverse", y, range(self.length), kwargs)

    def _forward_and_log_det(self, x, **kwargs):
        return self._run("forward", x, range(self.length - 1, -1, -1), kwargs)

    def _run(self, direction, x, order, kwargs):
        """The steps with the indices `order`, one after the other: value and log-determinant."""
        x, kwargs = _conditions.for_inner(self, self._with_batch_of_steps(x), kwargs)
        if direction == "inverse":
            # A step has slices of the variables, and can't tell.
            for layer in self.bijector.submodules:
                if hasattr(layer, "warn_if_not_fitted"):
                    layer.warn_if_not_fitted()
        kwargs = tf.nest.map_structure(tf.convert_to_tensor, kwargs)
        training = stacked_networks.is_training()
        state = self._state if training else []
        stacks = [tf.convert_to_tensor(reference) for reference in self._references]
        log_det = tf.zeros(tf.shape(x)[: x.shape.rank - self.forward_min_event_ndims], x.dtype)
        evaluate = functools.partial(self._evaluate, direction, state, training)
        unrolls = _loops.should_unroll(self.unroll, self.length)
        run = _loops.run_unrolled if unrolls else _loops.run_looped
        if self.remat == "reconstruct":
            back = "forward" if direction == "inverse" else "inverse"
            reconstruct = functools.partial(self._evaluate, back, state, training)
            run = _reconstruction.with_reconstruction(run, reconstruct, self.name)
        elif self.remat:
            evaluate = _loops.with_recomputation(evaluate)
        value, log_det, new_state = run(evaluate, stacks, order, x, log_det, state, kwargs)
        for variable, rows in zip(state, new_state, strict=True):
            variable.assign(rows)
        return value, log_det

    def _evaluate(self, direction, state, training, x, slices, kwargs):
        """One step: value, log-determinant, and the state that its networks leave."""
        step, networks = self._step(slices, training)
        ndims = self.forward_min_event_ndims
        value, log_det = _base.value_and_log_det(step, direction, x, ndims, **kwargs)
        if not value.shape.is_compatible_with(x.shape):
            raise ValueError(
                f"{self.name}: steps must keep the shape of their input; got one that makes "
                f"{value.shape} of {x.shape}."
            )
        after = {id(v): s for v, s in zip(self._references, slices, strict=True)}
        for stack, network in networks:
            for variable, new in zip(stack.variables, network.values, strict=True):
                if new is not after[id(variable)] and not any(variable is v for v in state):
                    raise ValueError(
                        f"{self.name}: network {stack.network.name!r} changes its variable "
                        f"{variable.name!r} outside of training, which steps in a loop can't."
                    )
                after[id(variable)] = new
        batch = tf.shape(value)[: value.shape.rank - ndims]
        return value, tf.broadcast_to(log_det, batch), [after[id(v)] for v in state]

    def _step(self, slices, training=None):
        """The step with these values, and [(stack, slice), ...] of the networks in it."""
        values = {id(r): value for r, value in zip(self._references, slices, strict=True)}
        networks = {}

        def replace(part):
            if not isinstance(part, stacked_networks.StackedNetwork):
                return values[id(part)]
            if id(part) not in networks:
                own = [values[id(variable)] for variable in part.variables]
                networks[id(part)] = (
                    part,
                    stacked_networks.NetworkSlice(part.network, own, training),
                )
            return networks[id(part)][1]

        # The gradient of a loop can't recompute a step with constants from outside of it.
        step = _stacking.map_parameters(self.bijector, replace, remake=bool(self.remat))
        return step, networks.values()

    def _with_batch_of_steps(self, x):
        """x with the batch dimensions that the parameters of the steps have beyond its own."""
        ndims = self.forward_min_event_ndims
        if ndims:
            checks.check_event(x, self.name, checks.EVENTS[ndims])
        batch = self.experimental_batch_shape(x_event_ndims=ndims)
        if batch.rank == 0:
            return x
        batch = self.experimental_batch_shape_tensor(x_event_ndims=ndims)
        lead, event = tf.split(tf.shape(x), [x.shape.rank - ndims, ndims])
        return tf.broadcast_to(x, tf.concat([tf.broadcast_dynamic_shape(lead, batch), event], 0))
