"""Seeded kills of one host's supervisor and agent under load, and a judge of what the workers themselves wrote down."""
