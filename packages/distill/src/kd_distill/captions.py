"""What a caption may be, decided once when an index is built, before any tokenizer sees it."""

from kd_distill.ledger import BadSample, Cause

MAX_BYTES = 8192  # 77 tokens are about 400; longer is a web page, not a caption
PRINTED_NULLS = ("nan", "None")  # what str() makes of a missing value; "NA" or "n/a" stay, they may be meant


def checked(raw: bytes | None) -> str:
    """The caption in `raw`, stripped of space around it.

    Raises:
        BadSample: If it is missing, empty, a printed null, not UTF-8, holds a NUL byte or is longer than `MAX_BYTES`.
    """
    if raw is None:
        raise BadSample(Cause.EMPTY, "no value")
    if len(raw) > MAX_BYTES:
        raise BadSample(Cause.LONG, f"{len(raw)} bytes, expected at most {MAX_BYTES}")
    if b"\0" in raw:
        raise BadSample(Cause.NUL, f"at byte {raw.index(0)}")
    try:
        caption = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadSample(Cause.ENCODING, f"at byte {error.start}") from None
    if not caption:
        raise BadSample(Cause.EMPTY, f"{len(raw)} bytes of space")
    if caption in PRINTED_NULLS:
        raise BadSample(Cause.NULL, repr(caption))
    return caption
