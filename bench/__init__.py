"""Benchmarks: `python -m bench [NAME...]` prints tables. Nothing here is asserted.

Machines differ and are busy with other things, so what counts is the ratio to a baseline that
took turns with the measured thing in the same call.
"""
