"""Measurements that the README quotes; `make bench` runs them all and stores what they print."""
