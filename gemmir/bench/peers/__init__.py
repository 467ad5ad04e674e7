"""The contestants: one file each, with `find`, which loads a library or says why it cannot.

A file is imported in the process of its contestant only.
"""
