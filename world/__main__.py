"""`python -m world`."""

from world.cli import app

if __name__ == "__main__":
    app(prog_name="python -m world")
