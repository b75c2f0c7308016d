"""Models in, an answer out: clusters, agreement, null, consensus and a report of models that exist. No database."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.answer.readouts import study_readouts as study_readouts
    from december_plugin.answer.study import Study as Study

_NAMES = {
    "readouts": ["study_readouts"],
    "study": ["Study"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
