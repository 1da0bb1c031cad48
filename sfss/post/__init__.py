"""What is PostgreSQL's own: its tables and SQL functions, and the commands that begin with ``sfss post``."""
