"""The points of a worker's start at which dying_supervisor.py can die."""

POINTS = ["before fork", "between fork and journal", "between journal and release", "after release"]
