"""Sentences spoken by the free speech synthesizers of Debian, as 16 kHz shards.

`python -m training.speak --work DIR` reads DIR/text and writes DIR/speech/SET-NNN.{npy,json}: one
array of int16 samples and, once that is complete, the utterances in it. Sets:

train    voices and sentences to train on
dev      espeak variants and sentences never trained on
natural  two female voices made from recordings, never trained on, with held-out sentences
foreign  other languages, to train on as "not understood"; foreign-dev: languages held out
"""

import argparse
import io
import json
import random
import re
import subprocess
import tempfile
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

RATE = 16000
SHARD = 1000  # utterances a file
FESTIVAL_BATCH = 20  # sentences for one start of festival, which takes longer than a sentence

Samples = npt.NDArray[np.int16]


def _words(text: str) -> list[str]:
    return text.split()


ACCENTS = _words(
    "en-us en-us en-us-nyc en-gb en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-029"
)
VARIANTS = _words(
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario "
    "Michael Mike Nguyen Storm adam anika announcer antonio aunty belinda benjamin boris "
    "caleb david ed edward edward2 f1 f2 f3 f4 f5 grandma grandpa gustave iven iven2 john "
    "kaukovalta klatt klatt2 klatt3 klatt4 linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel "
    "miguel norbert pablo paul pedro quincy rob robert sandro shelby steph travis victor zac "
    "whisperf"
)
HELD_OUT_VARIANTS = ("Andrea", "Mike", "f4", "m6", "paul")
FOREIGN = _words("de fr es it nl pl ru cs hu tr el fi ro")
HELD_OUT_FOREIGN = _words("sv pt-BR da")


@dataclass(frozen=True)
class Job:
    """One sentence, and how to say it."""

    text: str
    synthesizer: str
    voice: str
    speed: float = 1.0
    pitch: int = 50
    gap: int = 0
    spoken: str = ""
    """What the synthesizer is given, where that is not the text."""

    @property
    def label(self) -> str:
        """The voice's full name."""
        return f"{self.synthesizer}:{self.voice}"


@dataclass(frozen=True)
class Utterance:
    """Where one utterance lies in its shard."""

    text: str
    voice: str
    start: int
    samples: int


def read_wave(data: bytes) -> Samples:
    """The samples of a WAV file at 16 kHz; a header that claims more than there is is forgiven."""
    with wave.open(io.BytesIO(data)) as file:
        rate = file.getframerate()
        raw = np.frombuffer(file.readframes(len(data)), np.int16)
    if rate == RATE:
        return raw
    resampled: Samples = soxr.resample(raw, rate, RATE)
    return resampled


def trimmed(samples: Samples) -> Samples | None:
    """Speech without the silence around it, at one level; None where there is no speech."""
    level = np.abs(samples.astype(np.float32))
    peak = float(level.max(initial=0))
    if peak < 100:
        return None
    loud = np.flatnonzero(level > peak * 0.01)
    cut = samples[max(0, loud[0] - 400) : loud[-1] + 800]
    if not RATE // 5 < len(cut) < RATE * 14:
        return None
    return (cut.astype(np.float32) * (20000 / peak)).astype(np.int16)


def say_espeak(job: Job) -> Samples:
    """One sentence by espeak-ng."""
    command = ["espeak-ng", "-v", job.voice, "-s", str(round(165 * job.speed)), "--stdout"]
    command += ["-p", str(job.pitch), "-g", str(job.gap), job.spoken or job.text]
    return read_wave(subprocess.run(command, capture_output=True, timeout=30, check=True).stdout)


def say_flite(job: Job) -> Samples:
    """One sentence by flite."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", job.voice, "--setf", f"duration_stretch={1 / job.speed:.2f}"]
        if job.voice == "kal16":
            command += ["--setf", f"int_f0_target_mean={50 + job.pitch}"]
        subprocess.run([*command, "-t", job.text, "-o", file.name], timeout=30, check=True)
        return read_wave(Path(file.name).read_bytes())


def say_festival(jobs: list[Job]) -> list[Samples]:
    """Several sentences of one voice by one run of festival."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"(voice_{jobs[0].voice})"]
        for number, job in enumerate(jobs):
            lines += [
                f"(Parameter.set 'Duration_Stretch {1 / job.speed:.2f})",
                f'(set! u (utt.synth (Utterance Text "{job.text}")))',
                f'(utt.save.wave u "{folder}/{number}.wav" \'riff)',
            ]
        script = Path(folder) / "say.scm"
        script.write_text("\n".join(lines), encoding="utf-8")
        subprocess.run(["festival", "-b", str(script)], timeout=120, check=True)
        files = (Path(folder) / f"{number}.wav" for number in range(len(jobs)))
        return [read_wave(file.read_bytes()) if file.exists() else _nothing() for file in files]


def _nothing() -> Samples:
    return np.zeros(0, np.int16)


def say(jobs: list[Job]) -> list[tuple[Job, Samples]]:
    """What the synthesizer of these jobs (one and the same) makes of them; failures are dropped."""
    try:
        if jobs[0].synthesizer == "festival":
            spoken = say_festival(jobs)
        elif jobs[0].synthesizer == "flite":
            spoken = [say_flite(job) for job in jobs]
        else:
            spoken = [say_espeak(job) for job in jobs]
    except (subprocess.SubprocessError, OSError, wave.Error, EOFError) as error:
        print(f"left out: {jobs[0].label}: {error}", flush=True)
        return []
    done = [(job, trimmed(samples)) for job, samples in zip(jobs, spoken, strict=True)]
    return [(job, samples) for job, samples in done if samples is not None]


def espeak_job(text: str, held_out: bool, r: random.Random) -> Job:
    """A sentence for a random accent and variant of espeak-ng."""
    variants = [v for v in VARIANTS if (v in HELD_OUT_VARIANTS) == held_out]
    if not held_out:
        variants.append("")
    variant = r.choice(variants)
    voice = r.choice(ACCENTS) + ("+" + variant if variant else "")
    gap = r.choice([0, 0, 0, 1, 2, 4])
    return Job(text, "espeak", voice, round(r.uniform(0.75, 1.25), 2), r.randint(20, 80), gap)


def train_job(text: str, r: random.Random) -> Job:
    """A sentence for one of the voices to train on: a bit over half of them espeak's."""
    kind = r.random()
    if kind < 0.55:
        return espeak_job(text, False, r)
    speed, pitch = round(r.uniform(0.78, 1.28), 2), r.randint(20, 90)
    if kind < 0.85:
        return Job(text, "flite", r.choice(["awb", "awb", "rms", "rms", "kal16"]), speed, pitch)
    return Job(text, "festival", r.choice(["kal_diphone", "ked_diphone"]), speed, pitch)


def natural_job(text: str, r: random.Random) -> Job:
    """A sentence for one of the natural voices that are never trained on."""
    synthesizer, voice = r.choice([("flite", "slt"), ("festival", "cmu_us_slt_arctic_hts")])
    return Job(text, synthesizer, voice, round(r.uniform(0.9, 1.15), 2))


def foreign_jobs(languages: list[str], count: int, r: random.Random) -> list[Job]:
    """Commands in other languages, which the model shall not understand."""
    from training.text import Templates

    jobs = []
    for language in languages:
        templates = Templates(lambda _: "", language)
        for _ in range(count // len(languages)):
            spoken = " ".join(re.sub(r"[^\w' ]", " ", templates.sentence(r)).split())
            variant = r.choice(["", "+f2", "+m3", "+f5", "+m7", "+klatt2"])
            voice = language.lower() + variant
            speed = round(r.uniform(0.8, 1.2), 2)
            jobs.append(Job("", "espeak", voice, speed, r.randint(20, 80), spoken=spoken))
    r.shuffle(jobs)
    return [job for job in jobs if len(job.spoken) > 5]


def batched(jobs: list[Job]) -> Iterator[list[Job]]:
    """The jobs in nearly their order, festival's gathered by voice."""
    waiting: dict[str, list[Job]] = {}
    for job in jobs:
        if job.synthesizer != "festival":
            yield [job]
            continue
        batch = waiting.setdefault(job.voice, [])
        batch.append(job)
        if len(batch) == FESTIVAL_BATCH:
            yield waiting.pop(job.voice)
    yield from waiting.values()


def write_shard(path: Path, spoken: list[tuple[Job, Samples]]) -> None:
    """One shard: the samples first, so that a list of utterances means a complete shard."""
    starts = np.cumsum([0] + [len(samples) for _, samples in spoken])
    np.save(path.with_suffix(".npy"), np.concatenate([samples for _, samples in spoken]))
    rows = [
        asdict(Utterance(job.text, job.label, int(start), len(samples)))
        for (job, samples), start in zip(spoken, starts[:-1], strict=True)
    ]
    part = path.with_suffix(".part")
    part.write_text(json.dumps(rows), encoding="utf-8")
    part.replace(path.with_suffix(".json"))


def speak(folder: Path, name: str, jobs: list[Job], processes: int, first: int = 0) -> None:
    """Say all jobs and write them as shards of the set `name`."""
    began, number, seconds = time.monotonic(), first, 0.0
    buffer: list[tuple[Job, Samples]] = []
    with ThreadPoolExecutor(processes) as pool:
        for spoken in pool.map(say, batched(jobs)):
            buffer += spoken
            seconds += sum(len(samples) for _, samples in spoken) / RATE
            if len(buffer) >= SHARD:
                write_shard(folder / f"{name}-{number:03}", buffer)
                number, buffer = number + 1, []
                passed = time.monotonic() - began
                done = (number - first) * SHARD
                print(f"{name}: {done}/{len(jobs)} {seconds / 3600:.1f} h in {passed:.0f} s")
    if buffer:
        write_shard(folder / f"{name}-{number:03}", buffer)
    print(
        f"{name}: {seconds / 3600:.2f} h of speech in {time.monotonic() - began:.0f} s", flush=True
    )


def load(folder: Path, name: str, known: int = 0) -> list[tuple[Utterance, Samples]]:
    """The set's utterances from shard `known` on, mapped from disk."""
    loaded: list[tuple[Utterance, Samples]] = []
    for path in sorted(folder.glob(f"{name}-[0-9]*.json"))[known:]:
        samples = np.load(path.with_suffix(".npy"), mmap_mode="r")
        for row in json.loads(path.read_text(encoding="utf-8")):
            utterance = Utterance(**row)
            loaded.append((utterance, samples[utterance.start :][: utterance.samples]))
    return loaded


def main() -> None:
    """Speak every set; the small ones first, so that training can start before the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made here")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--train", type=int, default=30000, help="utterances to train on")
    parser.add_argument("--dev", type=int, default=400, help="utterances in each held-out set")
    parser.add_argument("--foreign", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    folder = args.work / "speech"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        n: (args.work / "text" / f"{n}.txt").read_text().splitlines() for n in ("train", "dev")
    }
    r = random.Random(args.seed)
    held = texts["dev"]
    dev = [espeak_job(text, True, r) for text in held[: args.dev]]
    natural = [natural_job(text, r) for text in held[args.dev : 2 * args.dev]]
    speak(folder, "dev", dev, args.processes)
    speak(folder, "natural", natural, args.processes)
    train = [train_job(text, r) for text in texts["train"][: args.train]]
    half = len(train) // 3
    speak(folder, "train", train[:half], args.processes)
    foreign = foreign_jobs(FOREIGN, args.foreign, r)
    speak(folder, "foreign", foreign, args.processes)
    speak(folder, "foreign-dev", foreign_jobs(HELD_OUT_FOREIGN, 100, r), args.processes)
    speak(
        folder, "train", train[half:], args.processes, first=len(list(folder.glob("train-*.json")))
    )


if __name__ == "__main__":
    main()
