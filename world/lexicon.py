"""The words of the world: what can be named in a picture, and the colours it is drawn in."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 200),
    "yellow": (240, 200, 20),
    "purple": (140, 60, 170),
    "orange": (245, 130, 20),
    "black": (20, 20, 20),
    "white": (252, 252, 252),
}
BACKDROPS: dict[str, tuple[int, int, int]] = {
    "grey": (150, 150, 150),
    "beige": (205, 190, 160),
    "teal": (110, 170, 170),
    "mauve": (170, 150, 180),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
NUMBERS = ("one", "two", "three", "four")
LETTERS = ("A", "B", "C", "D")

CELLS: dict[tuple[int, int], str] = {  # (column, row) of a 3 x 3 grid
    (0, 0): "top left",
    (1, 0): "top",
    (2, 0): "top right",
    (0, 1): "left",
    (1, 1): "center",
    (2, 1): "right",
    (0, 2): "bottom left",
    (1, 2): "bottom",
    (2, 2): "bottom right",
}
EDGES = ("left", "right", "top", "bottom")

WORDS = ("bank", "cafe", "fish", "golf", "hotel", "jazz", "milk", "park", "stop", "taxi", "west", "zoo")
BAR_COLOURS = ("red", "green", "blue", "yellow")
BAR_VALUES = (1, 2, 3, 4, 5)
PATTERNS = ("stripes", "dots", "checks", "rings")
PEOPLE: dict[str, str] = {  # name: colour of the face
    "anna": "yellow",
    "boris": "green",
    "clara": "orange",
    "david": "blue",
    "elena": "purple",
    "felix": "red",
}
MOODS = ("happy", "sad")
PLACES: dict[str, tuple[str, str, str]] = {  # name: the three stripes of its flag
    "arden": ("red", "white", "green"),
    "brava": ("blue", "yellow", "red"),
    "corvo": ("black", "red", "yellow"),
    "delta": ("green", "white", "blue"),
    "eldor": ("purple", "yellow", "purple"),
    "fjord": ("orange", "white", "black"),
}
TOTALS = tuple(range(1, 10))
PICTURES = ("shapes", "room", "sign", "chart", "form", "diagram", "portrait", "flag", "artwork")


def a(noun: str) -> str:
    """`noun` with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def listed(parts: list[str]) -> str:
    """English enumeration: "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def plural(noun: str) -> str:
    """More than one of `noun`."""
    return f"{noun}{'es' if noun.endswith('s') else 's'}"
