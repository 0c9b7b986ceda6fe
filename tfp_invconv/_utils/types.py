"""The types of public arguments, by names that the manual shows.

TensorFlow and TFP are unknown to type checkers, so that some of these are any type to them.
"""

import os
from collections.abc import Sequence
from typing import Any

from typing_extensions import TypeAliasType

# A tensor, or what `tf.convert_to_tensor` converts to one. For a parameter of a layer, also a
# variable or a deferred tensor.
TensorLike = TypeAliasType("TensorLike", Any)
# A `tf.DType`, NumPy's, or a name.
DType = TypeAliasType("DType", Any)
Shape = TypeAliasType("Shape", Sequence[int])
PathLike = TypeAliasType("PathLike", str | os.PathLike[str])
