"""Four bugs that must not stay unseen: each a patch, and the narrowest history in which the checker of records finds it."""
