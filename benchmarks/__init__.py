"""Latency, accuracy and throughput; ours beside others in one run."""
