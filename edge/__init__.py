"""Run converted policies on small computers: load, verify, act, drive a fixed-rate loop, measure.

Needs numpy and one TFLite interpreter, nothing else; imports neither `converters` nor `tfqrl`.
"""

from edge.artifact import Manifest
from edge.errors import UserError
from edge.loop import ControlLoop
from edge.loop_report import LoopReport
from edge.plants import Plant, PlantStoppedError
from edge.policy import Policy
from edge.realtime import Realtime
from edge.safety import ActionLimits, Safety

__all__ = [
    "ActionLimits",
    "ControlLoop",
    "LoopReport",
    "Manifest",
    "Plant",
    "PlantStoppedError",
    "Policy",
    "Realtime",
    "Safety",
    "UserError",
]
