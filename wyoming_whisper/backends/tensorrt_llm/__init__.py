"""TensorRT-LLM's Whisper: many requests at once, on large GPUs."""
