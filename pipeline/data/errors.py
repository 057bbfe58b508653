"""What can go wrong with data, by exit code."""


class DataError(ValueError):
    """The data, or a server that has them, are not as expected. Exit code 2."""

    exit_code = 2


class GatedError(DataError):
    """A server wants terms accepted or a token first."""


class IntegrityError(DataError):
    """Bytes are not those that were promised, or an archive is not safe to unpack. Exit code 5."""

    exit_code = 5


class SpaceError(DataError):
    """The disk is too small. Exit code 6."""

    exit_code = 6


class StoppedError(Exception):
    """A signal asked to stop; what was fetched stands, and the same command goes on."""
