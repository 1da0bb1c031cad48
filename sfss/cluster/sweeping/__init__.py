"""The blocks of large files: those that nobody has are removed, the others are brought where they belong.

``sweep`` walks over them, stripe by stripe; each stripe has its turn in ``stripeturn``, each block in ``blockturn``.
Whose a stripe is, ``claims`` finds out, from what ``witnesses`` say for sure; ``trace`` and ``absence`` look through
all manifests.
"""
