"""In-silico experiments: the images that neurons of a trained model prefer, and how they respond to each other's."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.insilico.ascent_settings import AscentSettings as AscentSettings
    from december_plugin.insilico.canvas import Canvas as Canvas
    from december_plugin.insilico.exciting_images import maximally_exciting_images as maximally_exciting_images
    from december_plugin.insilico.filter_match import match_filters as match_filters
    from december_plugin.insilico.mei_confusion import mei_confusion as mei_confusion

_NAMES = {
    "ascent_settings": ["AscentSettings"],
    "canvas": ["Canvas"],
    "exciting_images": ["maximally_exciting_images"],
    "filter_match": ["match_filters"],
    "mei_confusion": ["mei_confusion"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
