"""Where sandboxes run. `open_engine` finds an engine by its name."""

from crkernel.engines.base import Engine, open_engine
from crkernel.engines.limits import Limits
from crkernel.engines.sandbox import Sandbox

__all__ = ["Engine", "Limits", "Sandbox", "open_engine"]
