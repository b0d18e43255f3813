"""Tests. The package is imported before numpy is, as it sets how many threads that uses."""

import wyoming_whisper  # noqa: F401
