"""The embedded model, `mini-internvl-tiny`: how it is made from drawn pictures.

The worlds that it sees are those of `evalkit_tasks.miniatures`, with pictures that no miniature shows.
"""
