"""Every kind of picture by name."""

from collections.abc import Mapping

from world.kinds.chart import sample_chart
from world.kinds.diagram import sample_diagram
from world.kinds.document import sample_document
from world.kinds.named import sample_artwork, sample_flag, sample_portrait
from world.kinds.objects import sample_objects
from world.kinds.room import sample_room
from world.kinds.sign import sample_sign
from world.scene import Sampler

SAMPLERS: Mapping[str, Sampler] = {
    "objects": sample_objects,
    "room": sample_room,
    "sign": sample_sign,
    "chart": sample_chart,
    "document": sample_document,
    "diagram": sample_diagram,
    "portrait": sample_portrait,
    "flag": sample_flag,
    "artwork": sample_artwork,
}
