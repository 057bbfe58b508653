"""`vlm recipes`: the recipes that come with this package, and in what they differ."""

from typing import Annotated, Any

import typer

app = typer.Typer(invoke_without_command=True, help="List the packaged recipes; show one; compare two.")
Name = Annotated[str, typer.Argument(help="A packaged recipe; `vlm recipes` lists them.")]


def _values(name: str) -> dict[str, Any]:
    from kd_vlm.config import packaged_recipe

    try:
        return packaged_recipe(name).model_dump(mode="json")
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


@app.callback()
def recipes(context: typer.Context) -> None:
    """List the packaged recipes."""
    if context.invoked_subcommand is None:
        from kd_vlm.recipes import recipe_names

        for name in recipe_names():
            typer.echo(f"{name:<16}{_values(name)['summary']}")


@app.command(epilog="Example: vlm recipes show bunny-paper")
def show(name: Name) -> None:
    """Every field of a recipe, and its notes."""
    from kd_vlm.workspace import flat

    values = _values(name)
    notes, summary = values.pop("notes"), values.pop("summary")
    typer.echo(f"{name}: {summary}")
    for key, value in flat(values).items():
        typer.echo(f"  {key:<32}{_word(value)}")
    for note in notes:
        typer.echo(f"- {note}")


@app.command(epilog="Example: vlm recipes diff tinyllava-paper tinyllava-repo")
def diff(one: Name, other: Name) -> None:
    """Each field in which two recipes differ."""
    from kd_vlm.recipes import differences

    first, second = _values(one), _values(other)
    for values in (first, second):
        del values["notes"], values["summary"]
    found = differences(first, second)
    width = max((len(key) for key in found), default=0) + 2
    column = max(len(text) for text in (one, *(_word(a) for a, _ in found.values()))) + 2
    typer.echo(f"{'':<{width}}{one:<{column}}{other}")
    for key, (a, b) in found.items():
        typer.echo(f"{key:<{width}}{_word(a):<{column}}{_word(b)}")


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_word(v)}" for key, v in value.items())
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
