"""Places for files: folder and S3 stores, files with checksums that are written as a whole, december's home folder."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.storage.opening import check_store as check_store
    from december_plugin.storage.opening import open_store as open_store

_NAMES = {
    "opening": ["check_store", "open_store"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
