"""Benchmarks of resumable_sync against floors (what the layer below can do) and peers (other libraries).

`python -m benchmarks --help`. Every figure comes from a fresh process that did the same work as the others of its
scenario, in rounds that are interleaved; delivered bytes are compared by SHA-256. Figures of different runs, or
of different machines, are not comparable: the ratios within one run are what is claimed.
"""
