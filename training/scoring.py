"""Word error rate."""


def word_errors(reference: str, written: str) -> tuple[int, int]:
    """(substitutions, deletions and insertions; words of the reference)."""
    a, b = reference.split(), written.split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            cost = diagonal + (word != other)
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, cost)
    return row[-1], len(a)


def word_error_rate(pairs: list[tuple[str, str]]) -> float:
    """Errors over words of (reference, written) pairs."""
    counts = [word_errors(reference, written) for reference, written in pairs]
    return sum(errors for errors, _ in counts) / max(1, sum(words for _, words in counts))
