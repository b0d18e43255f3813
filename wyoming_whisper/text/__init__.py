"""What is made of a text: its style, its wording, and whether somebody said it."""
