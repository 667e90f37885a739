"""What runs inside a sandbox, sealed: the standard library only, and imports only itself.

The folder is bound read-only into every sandbox as it is, and runs there on the image's Python
(`enter` alone runs on the host's). The host side of the project imports `wire` from here.
"""
