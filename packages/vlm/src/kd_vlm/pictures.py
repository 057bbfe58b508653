"""Pictures of conversations: found inside their folder, checked by header before they are decoded."""

from pathlib import Path
from struct import error as StructError

from PIL import Image

from kd_vlm.problems import BadSampleError, MissingImageError

MAX_PIXELS = 64_000_000  # a larger header is refused before anything is decoded
BLANK = "<blank>"  # stands for a picture that is not to be had: a grey one


def open_image(folder: Path, name: str) -> Image.Image:
    """The picture `name` below `folder`, decoded to RGB. Raises as `image_path` and `decode_image` do."""
    return decode_image(image_path(folder, name))


def image_path(folder: Path, name: str) -> Path:
    """The path of image `name`, which must lie inside `folder`, symbolic links followed. `BLANK` is its own path.

    Raises:
        BadSampleError: If it does not (a ValueError).
        MissingImageError: If nothing is there (a FileNotFoundError).
    """
    if name == BLANK:
        return Path(BLANK)
    try:
        path = (folder / name).resolve()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, a loop of links, a name that is too long
        raise BadSampleError("image_outside", f"Image {name!r} is no path: {error}") from None
    if not path.is_relative_to(folder.resolve()):
        raise BadSampleError("image_outside", f"Image {name!r} lies outside its folder {folder}.")
    if not there:
        raise MissingImageError("image_missing", f"Expected image {name!r} in {folder}, found none.")
    return path


def decode_image(path: Path) -> Image.Image:
    """The picture at `path` in RGB; its header is checked for size before it is decoded. The suffix does not matter.

    Raises:
        BadSampleError: If it is too large or not a picture (a ValueError).
    """
    if str(path) == BLANK:
        return Image.new("RGB", (64, 64), (127, 127, 127))
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadSampleError(
                    "image_too_large",
                    f"{path}: {picture.width} x {picture.height} pixels, at most {MAX_PIXELS} are accepted.",
                )
            return picture.convert("RGB")
    except Image.DecompressionBombError as error:
        raise BadSampleError("image_too_large", f"{path}: {error}") from None
    except BadSampleError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, StructError) as error:
        raise BadSampleError("image_corrupt", f"{path}: not a picture that decodes: {error}") from None
