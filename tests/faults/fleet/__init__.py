"""Seeded histories of faults on real hosts under load and operations, everything recorded, and a checker of the record.

See docs/robustness.md.
"""
