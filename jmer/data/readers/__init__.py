"""Readers of feature files in other formats, one module per format.

A reader is a module with two functions: `add_arguments(parser)` declares the flags of its format, and
`read(sources, options)` returns a `Corpus` whose defects it has checked. `jmer.data.convert` lists the readers.
"""
