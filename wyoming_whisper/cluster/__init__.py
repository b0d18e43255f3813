"""The model on many machines, by way of Ray Serve: the replicas, and the command that starts them.

`backends/ray.py` is their front end.
"""
