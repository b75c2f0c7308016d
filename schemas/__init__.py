"""DataJoint tables for DECEMber, built on a lab's nnfabrik module.

Importing this package opens no connection; :func:`december_tables` uses that of the nnfabrik module. ::

    from nnfabrik.main import my_nnfabrik
    from december_plugin.schemas import december_tables

    nnfabrik = my_nnfabrik("lab_nnfabrik")
    tables = december_tables("lab_december", nnfabrik=nnfabrik)
    tables.TrainedModel.populate(reserve_jobs=True)

:mod:`december_plugin.results` queries the filled tables.
"""

from december_plugin.schemas.declare import DecemberTables, december_tables
from december_plugin.schemas.training import ThreePartTraining

__all__ = ["DecemberTables", "ThreePartTraining", "december_tables"]
