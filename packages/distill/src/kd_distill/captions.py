"""What a caption may be, decided once when an index is built, before any tokenizer sees it."""

from kd_distill.ledger import BadSampleError, Cause

MAX_BYTES = 8192  # 77 tokens are about 400; longer is a web page, not a caption
PRINTED_NULLS = ("nan", "None")  # what str() makes of a missing value; "NA" or "n/a" stay, they may be meant


def checked(raw: bytes | None) -> str:
    """The caption in `raw`, stripped of space around it.

    Raises:
        BadSampleError: If it is missing, empty, a printed null, not UTF-8, holds a NUL byte, or is longer than
            `MAX_BYTES`.
    """
    if raw is None:
        raise BadSampleError(Cause.EMPTY, "no value")
    if len(raw) > MAX_BYTES:
        raise BadSampleError(Cause.LONG, f"{len(raw)} bytes, expected at most {MAX_BYTES}")
    if b"\0" in raw:
        raise BadSampleError(Cause.NUL, f"at byte {raw.index(0)}")
    try:
        caption = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadSampleError(Cause.ENCODING, f"at byte {error.start}") from None
    if not caption:
        raise BadSampleError(Cause.EMPTY, f"{len(raw)} bytes of space")
    if caption in PRINTED_NULLS:
        raise BadSampleError(Cause.NULL, repr(caption))
    return caption
