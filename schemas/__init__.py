"""DataJoint tables; installed as ``december_plugin.schemas``."""
