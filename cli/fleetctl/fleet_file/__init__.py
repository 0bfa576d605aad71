"""The fleet file: what a person writes of apps, read with its places kept, and written from what runs.

`document.read_file` is the way in; `apply`, `diff` and the client library use it. Nothing here knows click or gRPC.
"""
