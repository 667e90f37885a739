"""`python -m crkernel -f CONNECTION_FILE`: what a kernelspec starts."""

from ipykernel.kernelapp import IPKernelApp

from crkernel.kernel import CRKernel

if __name__ == "__main__":
    # Nothing is to be captured of this process's own stdout and stderr. With a capture, a shutdown
    # can take seconds: ipykernel's control thread then flushes to a thread that has just ended.
    IPKernelApp.launch_instance(kernel_class=CRKernel, outstream_class=None)
