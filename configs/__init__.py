"""The experiments that come with jmer, a file each; installed as `jmer.configs`.

`--config NAME` and `jmer.get_config("NAME")` find them by the names of their files, from any folder.
"""
