"""`python -m crkernel -f CONNECTION_FILE`: what a kernelspec starts."""

from ipykernel.kernelapp import IPKernelApp

from crkernel.kernel import CRKernel

if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=CRKernel)
