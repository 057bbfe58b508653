"""The commands about whole VLMs: assemble, export, verify-export, chat."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kd_vlm.choices import ConnectorKind
from kd_vlm.console import errors
from kd_vlm.templates import TemplateName

if TYPE_CHECKING:
    from kd_vlm.reader import Conversation

MODEL = "A VLM: refs/NAME.json, models:/NAME, hf-hub:OWNER/NAME or a folder."


app = typer.Typer()


@app.command(epilog="Example: vlm assemble hf-hub:timm/ViT-SO400M-14-SigLIP-384 hf-hub:Qwen/Qwen2-0.5B --out out/base")
def assemble(
    encoder: Annotated[str, typer.Argument(help="An encoder: refs/NAME.json, models:/NAME, hf-hub:O/NAME, a folder.")],
    lm: Annotated[str, typer.Argument(help="A causal language model, named likewise.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    connector: Annotated[ConnectorKind, typer.Option(help="What stands between them.")] = "mlp2x_gelu",
    factor: Annotated[int | None, typer.Option(help="Of pixel_shuffle and avg_pool: tokens an edge to one.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of the tower: last, or an index such as -2.")] = None,
    class_token: Annotated[Literal["keep", "drop"] | None, typer.Option(help="Of CLIP towers.")] = None,
    template: Annotated[TemplateName, typer.Option(help="How conversations are written.")] = "qwen2_base",
    seed: Annotated[int, typer.Option(min=0, help="Of the connector's weights.")] = 0,
) -> None:
    """Put an encoder before a language model, untrained: what adapters are added to, and what other tools train."""
    with errors():
        from kd_vlm.export import write_assembled
        from kd_vlm.sources import resolve

        _quiet()
        feature = {"layer": layer if layer in (None, "last") else int(layer), "class_token": class_token}
        parts = {"connector": connector, "factor": factor, "template": template}
        write_assembled(resolve(encoder).path, resolve(lm).path, out, feature, parts, seed)
        typer.echo(str(out))


@app.command(epilog="Example: vlm export refs/vlms/vlm-teacher-small.json --out out/vlm-teacher-small --form legacy")
def export(
    model: Annotated[str, typer.Argument(help=MODEL)],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    form: Annotated[
        Literal["stock", "legacy"], typer.Option(help="legacy: loads with transformers 4.57 and vLLM too.")
    ] = "stock",
    adapter: Annotated[Path | None, typer.Option(help="A PEFT adapter of MODEL to merge.")] = None,
    scores: Annotated[Path | None, typer.Option(help="scores.json of an evaluation, for the model card.")] = None,
) -> None:
    """Write a VLM for others: a stock checkpoint with a model card, deterministic to the byte."""
    with errors():
        from kd_vlm.export import export as write
        from kd_vlm.sources import resolve

        _quiet()
        found = resolve(model)
        typer.echo(str(write(found.path, out, name=found.name, form=form, adapter=adapter, scores=scores)))


@app.command("verify-export", epilog="Example: vlm verify-export models/vlms/vlm-teacher-small out/vlm-teacher-small")
def verify_export(
    model: Annotated[str, typer.Argument(help=f"{MODEL} The one that was trained.")],
    exported: Annotated[Path | None, typer.Argument(help="The folder to verify; without it, MODEL itself.")] = None,
    data: Annotated[Path | None, typer.Option(help="Conversations to compare on; without it, built-in ones.")] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of their pictures.")] = None,
    n: Annotated[int, typer.Option(min=1, help="How many of them, from the beginning.")] = 8,
    template: Annotated[str, typer.Option(help="How training wrote conversations.")] = "qwen2_base",
    python: Annotated[str, typer.Option(help="An interpreter with another transformers.")] = sys.executable,
) -> None:
    """Compare logits, tokens and loss of the training graph with stock transformers in a process of its own.

    Exit code 1 says that something differs.
    """
    with errors():
        from kd_vlm.sources import resolve
        from kd_vlm.verify import example_conversations, read_some
        from kd_vlm.verify import verify_export as verify

        if (data is None) != (images is None):
            raise ValueError("--data and --images go together.")
        _quiet()
        found = resolve(model)
        conversations = read_some(data, images, n) if data and images else example_conversations()
        try:
            checks = verify(found.path, exported or found.path, conversations, template=template, python=python)
        except RuntimeError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
    for check in checks:
        word = "ok    " if check.ok else "DIFFER"
        typer.echo(f"{word}  {check.name}: {check.value:.3g} (at most {check.bound:.3g}) {check.note}".rstrip())
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command(epilog="Example: vlm chat --model models/vlms/vlm-teacher-small --image photo.jpg --prompt 'What is it?'")
def chat(
    model: Annotated[str, typer.Option(help=MODEL)],
    image: Annotated[list[Path], typer.Option(help="A picture to ask about; repeatable.")] = [],  # noqa: B006
    prompt: Annotated[str | None, typer.Option(help="Ask this alone, print the answer, and end.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
) -> None:
    """Talk with a VLM about pictures. In the conversation: /image PATH, /clear, /exit."""
    with errors():
        from kd_vlm.loading import load_vlm
        from kd_vlm.reader import Conversation
        from kd_vlm.sources import resolve

        _quiet()
        conversation = Conversation(load_vlm(resolve(model).path, device), max_new_tokens)
        for path in image:
            conversation.show(path)
        if prompt is not None:
            _say(conversation, prompt)
            return
        typer.echo("Ask; /image PATH shows a picture, /clear begins anew, /exit ends.", err=True)
        while (line := _line()) is not None:
            _obey(conversation, line)


def _obey(conversation: "Conversation", line: str) -> None:
    command, _, rest = line.partition(" ")
    if command == "/clear":
        conversation.forget()
    elif command == "/image":
        try:
            conversation.show(Path(rest.strip()).expanduser())
        except (ValueError, OSError) as error:
            typer.echo(str(error), err=True)
    elif command.startswith("/"):
        typer.echo(f"No command {command}; there are /image PATH, /clear and /exit.", err=True)
    elif line:
        try:
            _say(conversation, line)
        except ValueError as error:
            typer.echo(str(error), err=True)


def _say(conversation: "Conversation", question: str) -> None:
    begun = False
    for piece in conversation.ask(question):
        text = piece if begun else piece.lstrip()
        begun = begun or bool(text)
        typer.echo(text, nl=False)
        sys.stdout.flush()
    typer.echo()


def _line() -> str | None:
    """One line of the person's, None at the end."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    return None if line == "/exit" else line


def _quiet() -> None:
    """Transformers draws bars for every small step; the commands say what they do themselves."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
