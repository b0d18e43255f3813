"""From audio features to tokens: greedy, beam and sampled search over a `Session`.

Numpy only; what a runtime does is the `Session` it gets. The rules are openai/whisper's
(decoding.py); the beam search's are those of CTranslate2 (src/decoding.cc, BeamSearch), so that
both backends find the same words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from ..text.repetition import loops
from .audio import SECONDS_PER_TIMESTAMP, Array
from .constrained import (
    ConstrainedOptions,
    Constraint,
    ElasticSteps,
    FixedSteps,
    Sentence,
    search,
)
from .encoded import EncodedAudio
from .inference import GenerateOptions, Hypothesis
from .options import N_TEXT_CTX
from .session import ElasticSession, Session, Tokens
from .timing import first_positions
from .tokenizer import Tokenizer


class SessionInference:
    """An Inference over a `Session`; used from one thread at a time.

    `suppressed_begin` are the tokens that never come first: a blank, and the end
    (`suppress_ids_begin` of CTranslate2's config.json); `alignment_heads` are (layer, head) of the
    attention that looks at where a word is spoken, none for all of the later layers.
    """

    MAX_SCORES = 64  # of texts, kept for an audio
    MAX_SCORED_AT_ONCE = 160  # tokens: each has logits of the whole vocabulary, 0.2 MB

    # A loop this long is left: nobody says "no" so often in one breath, but five times somebody
    # does, and goes on. Shorter ones are judged when the text has ended.
    STOP_REPEATS = 20

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        suppressed_begin: Sequence[int],
        alignment_heads: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.can_align = session.is_elastic
        self._alignment_heads = tuple(alignment_heads)
        self.n_mels = session.n_mels
        self._session = session
        self._elastic = cast("ElasticSession", session) if session.is_elastic else None
        self._tokenizer = tokenizer
        self._suppressed_begin = tuple(suppressed_begin)
        self._audio: EncodedAudio | None = None

    def encode(self, mel: Array) -> EncodedAudio:
        """Return what the other methods need of this audio; good for as long as the session's."""
        self._lose_audio()
        features = self._session.encode(mel)
        self._audio = EncodedAudio(self._session, self._tokenizer.sot, features)
        return self._audio

    def detect_language(self, audio_features: EncodedAudio) -> list[tuple[str, float]]:
        """Return (code, probability), likeliest first."""
        tokens = self._tokenizer.language_tokens
        logits = audio_features.logits_at_sot([self._tokenizer.sot])[list(tokens.values())]
        probabilities = np.exp(log_softmax(logits))
        found = zip(tokens, probabilities.tolist(), strict=True)
        return sorted(found, key=lambda item: item[1], reverse=True)

    def generate(
        self, audio_features: EncodedAudio, prompt: Sequence[int], options: GenerateOptions
    ) -> Hypothesis:
        """Return the best hypothesis, the others with it; see `hypotheses`."""
        best, *others = self.hypotheses(audio_features, prompt, options)
        return dataclasses.replace(best, others=tuple(other.tokens for other in others))

    def score(
        self, audio_features: EncodedAudio, prompt: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        """Return the log-probabilities of each text's tokens after `prompt`, shape = (n_tokens,).

        They are among text tokens, the special ones left out.
        """
        kept, start = audio_features.scores, tuple(prompt)
        missing = [text for text in texts if (start, *text) not in kept]
        if missing:
            if len(kept) > self.MAX_SCORES:  # of the noise, which stays
                kept = audio_features.scores = {}
                missing = list(texts)
            score = self._score_at_once if self._elastic else self._score_by_steps
            for some in _batches(missing, self.MAX_SCORED_AT_ONCE):
                scores = score(audio_features, list(prompt), some)
                kept |= zip(((start, *text) for text in some), scores, strict=True)
        return [kept[(start, *text)] for text in texts]

    def _score_by_steps(
        self, audio: EncodedAudio, prompt: list[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        scores = []
        for text in texts:
            past, logprobs = list(prompt), []
            for token in text:
                logits = audio.advance([past], self._session.bias(())).logits()[0]
                logprobs.append(log_softmax(logits[: self._tokenizer.eot])[token])
                past.append(token)
            scores.append(np.array(logprobs, np.float32))
        return scores

    def _score_at_once(
        self, audio: EncodedAudio, prompt: list[int], texts: Sequence[Sequence[int]]
    ) -> list[Array]:
        """Return what `score` does, in one run: shorter texts are filled up at their end."""
        if not any(texts):
            return [np.zeros(0, np.float32) for _ in texts]
        longest = max(map(len, texts))
        pasts = [  # after the last token nothing is asked
            [*prompt, *text, *[self._tokenizer.eot] * (longest - len(text))][:-1] for text in texts
        ]
        logits = audio.logits_at_once(pasts, len(prompt) - 1)[..., : self._tokenizer.eot]
        return [token_logprobs(after, text) for after, text in zip(logits, texts, strict=True)]

    def align(
        self,
        audio_features: EncodedAudio,
        prompt: Sequence[int],
        text: Sequence[int],
        n_positions: int,
    ) -> list[int]:
        """See Inference."""
        if self._elastic is None:
            raise RuntimeError("this session does not tell what its decoder attends to")
        tokens = [*prompt, *text, self._tokenizer.eot]
        heads, features = self._alignment_heads, audio_features.features
        weights = self._elastic.attention(features, tokens, heads, n_positions)
        return first_positions(weights, rows=slice(len(prompt) - 1, -1))

    def hypotheses(
        self, audio_features: EncodedAudio, prompt: Sequence[int], options: GenerateOptions
    ) -> list[Hypothesis]:
        """Return all hypotheses, best first: as many as beams or samples, one for greedy search.

        Raises ValueError for more beams than the session was built with.
        """
        if options.beam_size > 1 and options.beam_size * 2 > self._session.n_candidates:
            raise ValueError(
                f"beam_size {options.beam_size} is more than the session's "
                f"{self._session.n_candidates // 2}"
            )
        if not self._elastic:  # it comes with the prompt's first run otherwise
            self._no_speech_prob(audio_features, list(prompt))
        if options.temperature > 0:
            found = self._sample(audio_features, list(prompt), options)
        elif options.beam_size > 1:
            found = self._beam_search(audio_features, list(prompt), options)
        else:
            found = [self._greedy(audio_features, list(prompt), options)]
        found.sort(key=lambda text: text.rank, reverse=True)
        no_speech_prob = self._no_speech_prob(audio_features, list(prompt))
        return [
            Hypothesis(h.tokens, h.total_logprob / (len(h.tokens) + 1), no_speech_prob)
            for h in found
        ]

    def constrained(
        self,
        audio_features: EncodedAudio,
        prompt: Sequence[int],
        constraint: Constraint,
        options: ConstrainedOptions,
        guide: Sequence[int] = (),
    ) -> list[Sentence]:
        """Return the likeliest sentences that `constraint` allows; see constrained.search.

        Raises RuntimeError where the audio features are gone.
        """
        eot = self._tokenizer.eot
        if self._elastic:
            elastic = ElasticSteps(self._elastic, audio_features.features, prompt)
            return search(elastic, constraint, eot, options, guide)
        n_rows = min(options.beam_size, max(self._session.n_candidates // 2, 1))
        cache = audio_features.cache_to_fill(n_rows, len(prompt) + options.max_new_tokens)
        steps = FixedSteps(self._session, cache, prompt, n_rows)
        return search(steps, constraint, eot, dataclasses.replace(options, beam_size=n_rows))

    def close(self) -> None:
        """Free the session's memory."""
        self._lose_audio()
        self._session.close()

    def _lose_audio(self) -> None:
        if self._audio and not self._elastic:
            self._audio.is_gone = True
        self._audio = None

    # The start of the transcript.

    def _no_speech_prob(self, audio: EncodedAudio, prompt: list[int]) -> float:
        """Return the probability of the no-speech token right after `<|startoftranscript|>`."""
        past = prompt[: prompt.index(self._tokenizer.sot) + 1]
        logits = audio.logits_at_sot(past)
        return float(np.exp(log_softmax(logits)[self._tokenizer.no_speech]))

    # Greedy search.

    def _greedy(self, audio: EncodedAudio, prompt: list[int], options: GenerateOptions) -> _Found:
        found = _Found()
        stream = self._stepwise if self._wants_timestamps(prompt) else self._stream
        for token, logprob in stream(audio, prompt, options):
            options.checkpoint()
            if not self._take(found, token, logprob):
                break
        return found

    def _stream(
        self, audio: EncodedAudio, prompt: list[int], options: GenerateOptions
    ) -> Iterator[tuple[int, float]]:
        """Yield up to max_new_tokens (token, logprob), chosen where the session runs."""
        given, left = list(prompt), options.max_new_tokens
        rest = self._session.bias(options.suppressed_tokens)
        bias = self._session.bias((*options.suppressed_tokens, *self._suppressed_begin))
        while left > 0 and len(given) <= N_TEXT_CTX:
            # A cache that is full is replaced by a larger one, which is fed the whole past.
            tokens, logprobs = audio.advance([given], bias).best()
            given.append(int(tokens[0]))
            left -= 1
            yield given[-1], float(logprobs[0])
            bias, cache = rest, audio.cache(1)
            for token, logprob in self._session.greedy(
                cache, given[-1], len(given) - 1, bias, left
            ):
                given.append(token)
                left -= 1
                yield token, logprob

    def _stepwise(
        self, audio: EncodedAudio, prompt: list[int], options: GenerateOptions
    ) -> Iterator[tuple[int, float]]:
        """The same where rules look at what was said: logits come to the host at each step."""
        given: list[int] = []
        for _ in range(options.max_new_tokens):
            logprobs = self._logprobs(audio, prompt, [given], options)[0]
            given.append(int(np.argmax(logprobs)))
            yield given[-1], float(logprobs[given[-1]])

    # Sampling.

    def _sample(
        self, audio: EncodedAudio, prompt: list[int], options: GenerateOptions
    ) -> list[_Found]:
        """Draw best_of texts at a temperature; always the same ones for the same audio."""
        random = np.random.default_rng(round(options.temperature * 1000))
        n_rows = min(options.best_of, self._session.max_batch)
        rows = [_Found() for _ in range(n_rows)]
        given: list[list[int]] = [[] for _ in rows]
        alive = [True] * n_rows
        for _ in range(options.max_new_tokens):
            options.checkpoint()
            logprobs = self._logprobs(audio, prompt, given, options)
            gumbel = random.gumbel(size=logprobs.shape)
            choices = np.argmax(logprobs / options.temperature + gumbel, axis=-1)
            for row, token in enumerate(choices.tolist()):
                given[row].append(token)
                if alive[row]:
                    alive[row] = self._take(rows[row], token, float(logprobs[row, token]))
            if not any(alive):
                break
        return rows

    def _take(self, found: _Found, token: int, logprob: float) -> bool:
        """Add a token; return whether more are to come."""
        found.total_logprob += logprob
        if token == self._tokenizer.eot:
            return False
        found.tokens.append(token)
        return not loops(found.tokens, self.STOP_REPEATS)

    # Beam search.

    def _beam_search(
        self, audio: EncodedAudio, prompt: list[int], options: GenerateOptions
    ) -> list[_Found]:
        n_beams = options.beam_size
        # All beams are the same at first: one does where it can become many.
        beams = [_Found() for _ in range(1 if self._elastic else n_beams)]
        parents: list[int] | None = None
        finished: list[_Found] = []
        for step in range(1, options.max_new_tokens + 1):
            options.checkpoint()
            if self._elastic and step == 2:  # the one row becomes many
                audio.spread(n_beams)
            tokens, logprobs = self._beam_candidates(audio, prompt, beams, parents, options)
            if step == 1:  # all beams are the same still
                tokens, logprobs = tokens[:1], logprobs[:1]
            ranked = _rank(beams, tokens, logprobs, 2 * n_beams)
            last = step == options.max_new_tokens or loops(beams[0].tokens, self.STOP_REPEATS)
            beams, parents = self._divide(beams, ranked, last, finished, n_beams)
            if last or len(finished) >= n_beams:
                break
        return finished

    def _divide(
        self,
        beams: list[_Found],
        ranked: list[_Candidate],
        last: bool,
        finished: list[_Found],
        n_beams: int,
    ) -> tuple[list[_Found], list[int]]:
        """Move what ended to `finished`; return the next beams and the beam each continues.

        Of twice as many candidates as beams, those that end among the better half are replaced by
        the best of the others.
        """
        eot = self._tokenizer.eot
        spare = (c for c in ranked[n_beams:] if c.token != eot)
        following, parents = [], []
        for candidate in ranked[:n_beams]:
            chosen = candidate
            if candidate.token == eot or last:
                finished.append(candidate.after(beams, eot))
                chosen = next(spare, candidate)
            following.append(chosen.after(beams, eot))
            parents.append(chosen.beam)
        return following, parents

    def _beam_candidates(
        self,
        audio: EncodedAudio,
        prompt: list[int],
        beams: list[_Found],
        parents: list[int] | None,
        options: GenerateOptions,
    ) -> tuple[Tokens, Array]:
        """Return each beam's likeliest (tokens, logprobs), shape = (len(beams), >= 2 beam_size)."""
        given = [beam.tokens for beam in beams]
        if self._wants_timestamps(prompt):
            logprobs = self._logprobs(audio, prompt, given, options, parents)
            return _likeliest(logprobs, 2 * options.beam_size)
        first = () if given[0] else self._suppressed_begin
        bias = self._session.bias((*options.suppressed_tokens, *first))
        pasts = [prompt + tokens for tokens in given]
        return audio.advance(pasts, bias, parents).candidates()

    # One step.

    def _logprobs(
        self,
        audio: EncodedAudio,
        prompt: list[int],
        given: list[list[int]],
        options: GenerateOptions,
        parents: list[int] | None = None,
    ) -> Array:
        """Return what may come next, filtered on the host, shape = (len(given), n_vocab)."""
        pasts = [prompt + tokens for tokens in given]
        logits = audio.advance(pasts, self._session.bias(()), parents).logits().copy()
        logits[:, list(options.suppressed_tokens)] = -np.inf
        if not given[0]:
            logits[:, list(self._suppressed_begin)] = -np.inf
        if self._wants_timestamps(prompt):
            for row, tokens in zip(logits, given, strict=True):
                apply_timestamp_rules(row, tokens, self._tokenizer)
        return log_softmax(logits)

    def _wants_timestamps(self, prompt: list[int]) -> bool:
        return prompt[-1] != self._tokenizer.no_timestamps


@dataclass
class _Found:
    """A text that is finished, or on its way."""

    tokens: list[int] = field(default_factory=list)
    total_logprob: float = 0.0

    @property
    def rank(self) -> float:
        """What hypotheses are compared by: nothing said has no mean, and comes last."""
        return self.total_logprob / len(self.tokens) if self.tokens else -np.inf


@dataclass(frozen=True)
class _Candidate:
    """One more token after a beam's text."""

    beam: int
    token: int
    total_logprob: float

    def after(self, beams: list[_Found], eot: int) -> _Found:
        """Return the beam's text with the token, unless that only ends it."""
        added = [] if self.token == eot else [self.token]
        return _Found(beams[self.beam].tokens + added, self.total_logprob)


def _rank(beams: list[_Found], tokens: Tokens, logprobs: Array, n_best: int) -> list[_Candidate]:
    """Return the n_best continuations of all beams, best first."""
    candidates = [
        _Candidate(beam, token, beams[beam].total_logprob + logprob)
        for beam in range(len(tokens))
        for token, logprob in zip(tokens[beam].tolist(), logprobs[beam].tolist(), strict=True)
    ]
    candidates.sort(key=lambda candidate: candidate.total_logprob, reverse=True)
    return candidates[:n_best]


def _likeliest(logprobs: Array, n_best: int) -> tuple[Tokens, Array]:
    """Return the n_best (tokens, logprobs) of each row, best first."""
    tokens = np.argpartition(-logprobs, n_best - 1, axis=-1)[:, :n_best]
    best = np.take_along_axis(logprobs, tokens, axis=-1)
    order = np.argsort(-best, axis=-1, kind="stable")
    return (
        np.take_along_axis(tokens, order, axis=-1).astype(np.int32),
        np.take_along_axis(best, order, axis=-1),
    )


def _batches(texts: Sequence[Sequence[int]], n_tokens: int) -> Iterator[Sequence[Sequence[int]]]:
    """Yield the texts in turn, so many at once as have no more tokens when all are as long."""
    first = 0
    for i in range(1, len(texts) + 1):
        more = texts[first : i + 1]
        if i == len(texts) or len(more) * max(map(len, more)) > n_tokens:
            yield texts[first:i]
            first = i


def apply_timestamp_rules(logits: Array, tokens: Sequence[int], tokenizer: Tokenizer) -> None:
    """Make impossible, in place, what timestamps forbid after `tokens`, shape = (n_vocab,).

    They come in pairs, except right before the end; they never decrease; the first is early; and
    where all of them together are likelier than any one text token, one of them it is
    (openai/whisper, decoding.py: ApplyTimestampRules).
    """
    max_initial = round(1.0 / SECONDS_PER_TIMESTAMP)  # openai/whisper, DecodingOptions
    begin = tokenizer.timestamp_begin
    logits[tokenizer.no_timestamps] = -np.inf
    if not tokens:
        logits[:begin] = -np.inf
        logits[begin + max_initial + 1 :] = -np.inf
        return
    after_one = tokens[-1] >= begin
    if after_one and (len(tokens) == 1 or tokens[-2] >= begin):
        logits[begin:] = -np.inf
        return
    if after_one:
        logits[: tokenizer.eot] = -np.inf
        logits[begin : tokens[-1]] = -np.inf
    else:
        latest = next((token for token in reversed(tokens) if token >= begin), begin - 1)
        logits[begin : latest + 1] = -np.inf
    logprobs = log_softmax(logits)
    if np.logaddexp.reduce(logprobs[begin:]) > logprobs[:begin].max():
        logits[:begin] = -np.inf


def log_softmax(logits: Array) -> Array:
    """Return log-probabilities over the last axis; -inf stays what it is."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float32)


def token_logprobs(logits: Array, tokens: Sequence[int]) -> Array:
    """Return log_softmax of one token in each row of logits, shape = (len(tokens),).

    Row by row: what is computed on the way stays in the processor's cache.
    """
    shifted = np.empty(logits.shape[-1], np.float32)
    chosen, sums = np.empty((2, len(tokens)), np.float32)
    for i, token in enumerate(tokens):
        np.subtract(logits[i], logits[i].max(), out=shifted)
        chosen[i] = shifted[token]
        sums[i] = np.exp(shifted, out=shifted).sum()
    return chosen - np.log(sums)
