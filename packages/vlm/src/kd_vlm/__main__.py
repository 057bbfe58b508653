"""`python -m kd_vlm`: the command `vlm`, for torchrun."""

from kd_vlm.cli import app

if __name__ == "__main__":
    app()
