"""Audio as it comes in: any PCM, files of any format, voices in it, where it is cut."""
