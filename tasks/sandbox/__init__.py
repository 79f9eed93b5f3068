"""Defences from files that nobody vouches for, each run in a process of its own.

This file imports nothing: the separate process starts from here, and loads torch only after it
has been locked up.
"""
