"""The catalogue: what there is, as rows of a database, for whoever asks by SQL. Derived from the nodes.

``changes.py``: what the rows of a file are. ``database.py``: connections, and SQLAlchemy's errors in our words;
``schema.py`` and ``sql/``: the tables; ``statements.py``: what is said to them. ``writer.py``: rows in groups, and what
is owed while the database is away; ``marks.py``: how other fronts hear of that. ``reading.py``: lists and searches.
``reindex.py``: the rows from the nodes, anew; ``mending.py``: when that is to be done, and what else is mirrored.
``catalogue.py`` puts them together. ``docs/operations/catalogue.rst`` says what each request does while the database is
away, and decision 0022 why.
"""
