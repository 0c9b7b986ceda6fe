"""Whether XLA compiles what is being traced."""

import tensorflow as tf
from tensorflow.python.ops import control_flow_util


def compiles_graph():
    """Whether XLA will compile the graph that is being traced."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
