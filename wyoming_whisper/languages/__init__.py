"""The words of each language that rules about texts need: one JSON file each."""
