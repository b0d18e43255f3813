"""One voice command as it arrives: early work, its turn in the queue, its end."""
