"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A slow or busy machine is no failure: no test here asserts a wall-clock time.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
