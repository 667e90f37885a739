"""Sandboxes in an ordinary Docker container: one per kernel, without privileges or capabilities.

The container's main process is the nest, as on the kernel's own machine. What goes to it and to
each sandbox are streams of `docker exec`, see `crkernel.guest.gate`; there is no file system that
both sides would have to see, so the daemon may be anywhere.
"""

from crkernel.engines.docker.engine import DockerEngine as DockerEngine
