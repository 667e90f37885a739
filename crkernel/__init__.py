"""A Jupyter kernel for JavaScript whose sessions rewind: a CRIU checkpoint after each cell.

The package's parts are described in `docs/design.md`; this module stays empty of imports so that
each entry point loads only what it needs.
"""

__version__ = "0.1.0"
