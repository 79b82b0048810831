"""What `import paceline` offers to notebooks and scripts: `paceline.train` and what it gives.

A shell over the command: the run is the same as that of `paceline run`, in processes of its own.
"""
