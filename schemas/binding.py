"""Binds the table templates of this package to a schema.

The tables are written as ordinary DataJoint classes that belong to no schema. Binding makes a subclass of each for one
schema, so that several labs' schemas can be open in one process, and importing the templates opens no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datajoint as dj

from december_plugin.schemas import quoted_values
from december_plugin.schemas.running_job import LeasedTable

quoted_values.install()


def bind(template: type, schema: dj.Schema, context: Mapping[str, Any], **attributes: Any) -> Any:
    """Return a subclass of ``template``, its parts included, that is declared in ``schema``.

    Parameters
    ----------
    template
        A table class without a schema; its name becomes the table's name.
    schema
        Where the table is declared, if it is not there yet.
    context
        The names that foreign keys of the definition refer to.
    **attributes
        Class attributes to set: the other tables that the methods use.
    """
    members: dict[str, Any] = {"__doc__": template.__doc__, "__module__": template.__module__, **attributes}
    for name in dir(template):
        part = getattr(template, name) if name[0].isupper() else None
        if isinstance(part, type) and issubclass(part, dj.Part):
            # DataJoint writes schema and master into a part's class, so each schema needs its own.
            members[name] = type(name, (part,), {"__doc__": part.__doc__, "__module__": part.__module__})
    bases = (LeasedTable, template) if issubclass(template, dj.Computed) else (template,)
    table = type(template)(template.__name__, bases, members)
    return schema(table, context=dict(context))
