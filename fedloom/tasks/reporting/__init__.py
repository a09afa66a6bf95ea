"""What people look at after a run: pages, tables, metrics. It reads the run store and nothing else."""
