"""Where sandboxes run. `open_engine` finds an engine by its name."""

from crkernel.engines.base import Engine, Limits, Sandbox, open_engine

__all__ = ["Engine", "Limits", "Sandbox", "open_engine"]
