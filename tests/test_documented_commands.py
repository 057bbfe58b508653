"""Every command that the documentation shows exists, with the options that it shows."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from kd_analysis.cli import app as analysis
from kd_distill.cli import app as distill
from kd_evalsuite.cli import app as evalsuite
from kd_vlm.cli import app as vlm

ROOT = Path(__file__).resolve().parents[1]
APPS = {"distill": distill, "vlm": vlm, "evalsuite": evalsuite, "analysis": analysis}
PLACES = ("*.md", "packages/*/README.md", "docs/**/*.md", "studies/*/*.md", "real/*.md", "contract/*.md", "world/*.md")
LAUNCHED = re.compile(r"^torchrun .*? -m kd_(\w+) ")


def pages() -> list[Path]:
    return sorted({page for place in PLACES for page in ROOT.glob(place)})


def code(text: str) -> Iterator[str]:
    """Lines of indented and fenced blocks, and inline code, without comments."""
    fenced = False
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield re.split(r"\s#\s", line.strip().removeprefix("$ "))[0]
        else:
            yield from re.findall(r"`([^`]+)`", line)


def commands() -> list[tuple[str, str]]:
    """(page, command line) of everything that calls one of the four."""
    found = []
    for page in pages():
        for line in code(page.read_text()):
            plain = LAUNCHED.sub(lambda m: f"{m[1]} ", line)
            if re.match(r"(distill|vlm|evalsuite|analysis) +[a-z]", plain):
                found.append((str(page.relative_to(ROOT)), plain))
    return found


COMMANDS = commands()


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line[:60]}" for page, line in COMMANDS])
def test_a_command_in_the_documentation_exists_with_its_options(page, line):
    try:
        words = shlex.split(re.split(r" [|>&;]+ ", line.replace("…", "").replace("'", '"'))[0])
    except ValueError:
        words = line.split()
    command = typer.main.get_command(APPS[words[0]])
    for name in words[1].split("|"):
        assert name in command.commands, f"{words[0]} has no {name}: {', '.join(command.commands)}"
        below = command.commands[name]
        if hasattr(below, "commands") and len(words) > 2 and words[2] in below.commands:
            below = below.commands[words[2]]
        known = {option for parameter in below.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(words[2:])):
            assert word in known | {"--help"}, f"{words[0]} {name} has no {word}: {', '.join(sorted(known))}"


def test_every_target_of_make_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in pages():
        for line in code(page.read_text()):
            if found := re.match(r"make ((?:[A-Z]+=\S+ )*)([a-z-]+)", line):
                assert found[2] in targets, f"{page.relative_to(ROOT)}: make {found[2]}"


def test_every_script_that_is_called_exists():
    for page in pages():
        for line in code(page.read_text()):
            for script in re.findall(r"(?<!\S)python3? ((?:benchmarks|contract|pipeline|world)/\w+\.py)", line):
                assert (ROOT / script).is_file(), f"{page.relative_to(ROOT)}: {script}"
