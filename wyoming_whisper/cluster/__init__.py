"""The model on many machines, by way of Ray Serve: the replicas, and the backend that asks them.

`commands/ray.py` starts them.
"""
