"""Measurements that the README and docs quote; `make bench` runs throughput.py, `make bench BENCH=NAME` another.

__main__.py lists the names.
"""
