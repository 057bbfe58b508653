"""`python -m kd_evalsuite`, which torchrun can start."""

from kd_evalsuite.cli import app

app()
