"""The blocks of large files: those that nobody has are removed, the others are brought where they belong.

``sweep`` walks over them, stripe by stripe; each stripe has its turn in ``stripeturn``, each block in ``blockturn``.
Whose a stripe is, ``claims`` finds out, from what ``witnesses`` say for sure; ``trace`` looks through all records where
that doesn't tell. ``relayout`` gives a file's blocks other homes, ``expiry`` puts abandoned uploads to an end,
``absence`` looks for files of which a whole stripe is nowhere, and ``roster`` notes which nodes there were.
"""
