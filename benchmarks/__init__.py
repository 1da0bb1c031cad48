"""Side-by-side measurements that print a table. ``RESULTS.rst`` keeps them, with machine, date and command."""
