"""`python -m kd_distill`: the command `distill`, for torchrun -m."""

from kd_distill.cli import app

if __name__ == "__main__":
    app()
