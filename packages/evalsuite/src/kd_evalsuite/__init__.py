"""kd-evalsuite."""

__version__ = "0.1.0"
