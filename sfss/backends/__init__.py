"""Clients of nodes, one kind of node to a module. Foreign exceptions become ``sfss.errors`` here and nowhere else."""
