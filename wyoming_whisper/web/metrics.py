"""What Prometheus asks for."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from .. import __version__
from ..status import Answer, State, Status


class Metrics:
    """Counts answers from now on; nothing of what was said."""

    PREFIX = "wyoming_whisper"
    AFTER_SPEECH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
    STAGE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
    """Seconds."""

    def __init__(self, status: Status, model: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._model = model
        self._answers = self._counter("answers", "Utterances answered, by outcome", ("outcome",))
        self._errors = self._counter("errors", "Utterances that failed, by code", ("code",))
        self._early = self._counter("early_answers", "Answers begun before the audio ended")
        self._truncated = self._counter(
            "truncated", "Utterances whose end was not heard: --max-utterance-seconds"
        )
        self._understood = self._counter(
            "home_sentences",
            "Texts compared with the home's sentences: as heard, corrected, or none of them",
            ("result",),
        )
        self._audio = self._counter("audio_seconds", "Seconds of audio received")
        self._waited = self._histogram(
            "after_speech_seconds",
            "From the end of the audio to the answer",
            self.AFTER_SPEECH_BUCKETS,
        )
        self._stages = self._histogram(
            "stage_seconds", "Time of a transcription by stage", self.STAGE_BUCKETS, ("stage",)
        )
        self._ready = self._gauge("ready", "Whether commands are answered now")
        self._done = self._gauge("build_fraction", "How much of an engine is built, 0 to 1")
        self._info = self._gauge(
            "info", "What runs, as labels", ("version", "model", "backend", "description")
        )
        self._requests = self._counter(
            "api_requests", "Requests to the OpenAI-compatible endpoint, by status", ("status",)
        )
        self._recorded = self._counter(
            "api_audio_seconds", "Seconds of audio transcribed for the OpenAI-compatible endpoint"
        )
        self._up = self._gauge("upstream_up", "Whether the upstream is asked now", ("upstream",))
        self._upstream_waited = self._histogram(
            "upstream_seconds",
            "From the end of the audio to the upstream's answer, where that was taken",
            self.AFTER_SPEECH_BUCKETS,
            ("upstream",),
        )
        self._upstream_failures = self._counter(
            "upstream_failures", "Utterances that the upstream failed on", ("upstream",)
        )
        self._failures_counted: dict[str, int] = {}
        self._status = status
        status.on_answer = self._take_answer

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, in a format that `accept` names."""
        self._take_state(self._status.state)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def take_request(self, status: int, seconds: float) -> None:
        """Count a request to the OpenAI-compatible endpoint, and the audio in it."""
        self._requests.labels(status).inc()
        self._recorded.inc(seconds)

    def _counter(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"{self.PREFIX}_{name}", about, labels, registry=self._registry)

    def _gauge(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"{self.PREFIX}_{name}", about, labels, registry=self._registry)

    def _histogram(
        self, name: str, about: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(
            f"{self.PREFIX}_{name}", about, labels, buckets=buckets, registry=self._registry
        )

    def _take_state(self, state: State) -> None:
        self._ready.set(state.health().verdict == "healthy")
        self._done.set(state.building_fraction or 0)
        labels = (__version__, self._model, state.backend or "", state.description)
        self._info.clear()  # what ran before is gone
        self._info.labels(*labels).set(1)
        for upstream in state.upstreams:
            self._up.labels(upstream.name).set(upstream.circuit == "closed")
            new = upstream.failures - self._failures_counted.get(upstream.name, 0)
            self._failures_counted[upstream.name] = upstream.failures
            self._upstream_failures.labels(upstream.name).inc(new)

    def _take_answer(self, answer: Answer) -> None:
        self._answers.labels(answer.outcome).inc()
        self._audio.inc(answer.seconds)
        self._truncated.inc(answer.truncated)
        if answer.outcome == "failed":
            self._errors.labels(answer.code).inc()
            return
        if answer.understood is not None:
            corrected = "corrected" if answer.is_corrected else "heard"
            self._understood.labels(corrected if answer.understood else "none").inc()
        self._waited.observe(answer.waited)
        if answer.early:
            self._early.inc()
        if answer.upstream:
            self._upstream_waited.labels(answer.upstream).observe(answer.waited)
            return
        for stage, seconds in answer.stages.items():
            self._stages.labels(stage).observe(seconds)
