"""`python -m pipeline.data`."""

from pipeline.data.cli import app

if __name__ == "__main__":
    app(prog_name="python -m pipeline.data")
