"""Training has requirements of its own (the extra `train`); without them, there is no test here."""

from importlib.util import find_spec

NEEDED = ("torch", "hassil", "home_assistant_intents", "soxr", "tokenizers")
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_*.py"]
