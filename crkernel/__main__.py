"""`python -m crkernel -f CONNECTION_FILE`: what a kernelspec starts; with a command in place of
options it is the same as `crkernel`."""

import sys

from crkernel.engines import nest_process, trial

if __name__ == "__main__":
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        from crkernel.cli import main

        main()
    nest_process.start_ahead(sys.argv[1:])
    trial.begin(sys.argv[1:])
    from crkernel.app import launch  # and all else, while the nest comes up

    launch()
