"""Types of public arguments, whose names the manual shows.

TensorFlow and TFP have no types for checkers, so some of these are `Any`.
"""

import os
from collections.abc import Sequence
from typing import Any

from typing_extensions import TypeAliasType

# Anything that `tf.convert_to_tensor` accepts; for a parameter of a layer, also a variable or a
# deferred tensor.
TensorLike = TypeAliasType("TensorLike", Any)
# A `tf.DType`, a NumPy dtype, or the name of one.
DType = TypeAliasType("DType", Any)
Shape = TypeAliasType("Shape", Sequence[int])
PathLike = TypeAliasType("PathLike", str | os.PathLike[str])
