"""`python -m crkernel -f CONNECTION_FILE`: what a kernelspec starts."""

import sys

from crkernel.engines import nest_process

if __name__ == "__main__":
    nest_process.start_ahead(sys.argv[1:])
    from crkernel.app import launch  # and all else, while the nest comes up

    launch()
