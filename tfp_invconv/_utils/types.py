"""Types of public arguments. Those of TensorFlow and TFP are unknown to type checkers."""

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

# What `tf.convert_to_tensor` takes; for a parameter, also a variable or a deferred tensor.
TensorLike: TypeAlias = Any
# A `tf.DType`, NumPy's, or a name.
DType: TypeAlias = Any
Shape: TypeAlias = Sequence[int]
PathLike: TypeAlias = str | os.PathLike[str]
