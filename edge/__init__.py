"""Run converted policies on small computers: load, verify, act, drive a fixed-rate loop, measure.

Needs numpy and one TFLite interpreter, nothing else; imports neither `converters` nor `tfqrl`.
"""

from edge.artifact import Manifest
from edge.errors import UserError
from edge.loop import ControlLoop
from edge.policy import Policy
from edge.safety import ActionLimits, Safety

__all__ = ["ActionLimits", "ControlLoop", "Manifest", "Policy", "Safety", "UserError"]
