"""How the embedded model, `mini-internvl-tiny`, is made from drawn images.

The worlds that it sees are those of `evalkit_tasks.miniatures`, with images that no miniature shows. This
program is part of the repository, not of the installed package; from the repository's folder:
`PYTHONPATH=train python -m tiny_model FOLDER`.
"""
