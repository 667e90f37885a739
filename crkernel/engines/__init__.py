"""Where sandboxes run. `open_engine` finds an engine by its name."""

from crkernel.engines.base import Engine, Sandbox, open_engine
from crkernel.engines.limits import Limits

__all__ = ["Engine", "Limits", "Sandbox", "open_engine"]
