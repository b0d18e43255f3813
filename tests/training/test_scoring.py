import pytest

from training.scoring import word_error_rate, word_errors


@pytest.mark.parametrize(
    ("reference", "written", "errors"),
    [
        ("turn on the lamp", "turn on the lamp", 0),
        ("turn on the lamp", "turn off the lamp", 1),
        ("turn on the lamp", "turn the lamp", 1),
        ("turn on the lamp", "please turn on the lamp", 1),
        ("turn on", "", 2),
        ("", "you", 1),
    ],
)
def test_errors_are_counted(reference: str, written: str, errors: int) -> None:
    assert word_errors(reference, written) == (errors, len(reference.split()))


def test_the_rate_is_over_all_words() -> None:
    assert word_error_rate([("a b c", "a b c"), ("d", "e")]) == 0.25
    assert word_error_rate([]) == 0
