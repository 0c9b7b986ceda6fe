"""Bijectors whose value and log-determinant come out of one evaluation."""

import tensorflow_probability as tfp

from tfp_invconv import _caches
from tfp_invconv.bijectors._hashed_once import HashedOnce


class OnePassBijector(HashedOnce, tfp.bijectors.Bijector):
    """Base class: value and log-determinant together, once for each input.

    TFP asks for them in two calls with the same tensor, and would evaluate a coupling's network
    in each. Here the first call leaves the log-determinant in TFP's own cache, beside the value,
    so that the second one finds it there. It lives exactly as long as the cached value does.

    Subclasses implement `_inverse_and_log_det(y, **kwargs)` and
    `_forward_and_log_det(x, **kwargs)`, each of which returns the value and the log-determinant
    of its own direction.
    """

    _cache = _caches.one_pass_cache

    def _forward_with_attributes(self, x, **kwargs):
        y, fldj = self._forward_and_log_det(x, **kwargs)
        return y, {"ildj": -fldj}

    def _inverse_with_attributes(self, y, **kwargs):
        x, ildj = self._inverse_and_log_det(y, **kwargs)
        return x, {"ildj": ildj}

    def _inverse_log_det_jacobian(self, y, **kwargs):
        # Named, so that it lives while the log-determinant is read.
        value = self._cache.inverse(y, **kwargs)  # noqa: F841
        return self._cache.inverse_attributes(y, **kwargs)["ildj"]
