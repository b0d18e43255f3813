"""What TensorRT alone needs: compiling a model for it, and running what was compiled."""
