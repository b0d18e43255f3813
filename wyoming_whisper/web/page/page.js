"use strict";

// All of the page: it asks for the state, draws it, and sends clips. No library; nothing is kept.

const SAMPLE_RATE = 16000;
const BUSY_POLL_MS = 1000;
const CALM_POLL_MS = 2500;
const MAX_FILE_BYTES = 200e6; // decoded here, in the browser's memory
const FEW = 8; // answers in the table at first
const STAGES = ["mel", "encode", "detect", "decode"];
const PHASES = {
  starting: "Starting",
  downloading: "Downloading",
  loading: "Loading",
  building: "Building",
  ready: "Ready",
  idle: "Asleep",
  unavailable: "Not ready",
  failed: "Failed",
  away: "Not reachable",
};
const OUTCOMES = {
  text: "understood",
  silence: "nothing said",
  withheld: "not sure, so nothing said",
};

const CUT_OFF = "the end was not heard: max_utterance_seconds";

const $ = (id) => document.getElementById(id);
let state = null;
let allShown = false;
let drawn = ""; // the ETag of what is on the screen

// -- building elements; text is only ever text ------------------------------------------------

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function draw(name, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

function duration(seconds) {
  if (seconds < 0.01) return `${(1000 * seconds).toFixed(1)}\u00a0ms`;
  return seconds < 1 ? `${Math.round(1000 * seconds)}\u00a0ms` : `${seconds.toFixed(2)}\u00a0s`;
}

function percent(fraction) {
  return `${Math.round(100 * fraction)}\u00a0%`;
}

const languageNames = new Intl.DisplayNames(["en"], { type: "language" });

function languageName(code) {
  try {
    return languageNames.of(code);
  } catch {
    return code;
  }
}

// -- what runs ---------------------------------------------------------------------------------

function showPhase(phase) {
  const pill = $("phase");
  if (pill.dataset.phase === phase && pill.textContent === PHASES[phase]) return; // said once
  pill.dataset.phase = phase;
  pill.textContent = PHASES[phase];
}

function showWork() {
  const building = state.answering && state.building;
  const text = building ? `Building in the background: ${state.building}` : state.detail;
  const fraction = building ? state.building_fraction : state.fraction;
  $("work").hidden = !text;
  $("detail").textContent = fraction === null ? text : `${text} (${percent(fraction)})`;
  const isWaiting = building || !["ready", "idle", "unavailable", "failed"].includes(state.phase);
  $("progress").hidden = !isWaiting;
  if (fraction === null) $("progress").removeAttribute("value");
  else $("progress").value = fraction;
}

function languagesInWords(codes) {
  if (codes.length > 6) return `${codes.length} languages`;
  return codes.map(languageName).join(", ");
}

function showFacts() {
  const facts = [["Model", state.model, ""]];
  if (state.backend) facts.push(["Backend", state.backend, state.why]);
  if (state.description) facts.push(["Runs as", state.description, ""]);
  if (state.languages.length) facts.push(["Understands", languagesInWords(state.languages), ""]);
  $("facts").replaceChildren(
    ...facts.flatMap(([name, value, why]) => [
      make("dt", { textContent: name }),
      make("dd", {}, value, ...(why ? [make("span", { className: "quiet", textContent: why })] : [])),
    ]),
  );
}

const CIRCUITS = { closed: "asked", "half-open": "on trial", open: "not asked now" };

function showUpstreams() {
  const upstreams = state.upstreams;
  $("upstreams").hidden = !upstreams.length;
  $("upstream-list").replaceChildren(
    ...upstreams.map((upstream) => {
      const facts = [`${upstream.answers} answered`, `${upstream.failures} failed`];
      if (upstream.latency !== null) facts.unshift(`${duration(upstream.latency)} after speech`);
      if (upstream.description) facts.unshift(upstream.description);
      return make(
        "li",
        {},
        make("span", { className: `circuit ${upstream.circuit}`, textContent: CIRCUITS[upstream.circuit] }),
        make("span", { textContent: upstream.name }),
        make("span", { className: "quiet", textContent: facts.join(" · ") }),
        ...(upstream.detail ? [make("span", { className: "quiet", textContent: upstream.detail })] : []),
      );
    }),
  );
}

function showLanguages() {
  const select = $("language");
  const known = [state.language, ...state.languages].join();
  if (select.dataset.known === known) return;
  select.dataset.known = known;
  select.parentElement.hidden = state.languages.length < 2;
  const own = state.language ? languageName(state.language) : "detected";
  const byName = [...state.languages].sort((a, b) => languageName(a).localeCompare(languageName(b)));
  const options = [
    new Option(`as set (${own})`, ""),
    ...(state.language ? [new Option("detect", "auto")] : []),
    ...byName.map((code) => new Option(languageName(code), code)),
  ];
  const chosen = select.value;
  select.replaceChildren(...options);
  if (options.some((option) => option.value === chosen)) select.value = chosen;
}

// -- stages ------------------------------------------------------------------------------------

function stageColor(name) {
  return `stage-${STAGES.includes(name) ? name : "other"}`;
}

function stageBar(stages, longest) {
  const bar = make("div", { className: "stages", ariaHidden: "true" });
  for (const [name, seconds] of stages) {
    const part = make("i", { className: stageColor(name) });
    part.style.width = `${(100 * seconds) / longest}%`;
    bar.append(part);
  }
  return bar;
}

function stageList(stages) {
  const parts = make("div", { className: "parts" });
  for (const [name, seconds] of stages) {
    const mark = make("i", { className: stageColor(name), ariaHidden: "true" });
    parts.append(make("span", {}, mark, `${name} ${duration(seconds)}`));
  }
  return parts;
}

function total(stages) {
  return Object.values(stages).reduce((sum, seconds) => sum + seconds, 0);
}

function stagesOf(stages, longest = total(stages)) {
  const shown = Object.entries(stages).filter(([, seconds]) => seconds > 0);
  return shown.length ? [stageBar(shown, longest), stageList(shown)] : [];
}

// -- the last commands -------------------------------------------------------------------------

function cell(className, ...children) {
  return make("td", { className, role: "cell" }, ...children); // roles: on phones it is no table
}

function answerRow(answer, longest) {
  const when = new Date(1000 * answer.time);
  const time = make("time", { dateTime: when.toISOString(), textContent: when.toLocaleTimeString() });
  const early = answer.early ? [make("div", { className: "badge", textContent: "begun early" })] : [];
  if (answer.upstream) {
    early.push(make("div", { className: "badge by", textContent: `by ${answer.upstream}` }));
  }
  const result = [answer.error || answer.text || OUTCOMES[answer.outcome]];
  if (answer.free_text) {
    result.push(make("div", { className: "badge", textContent: `heard as: ${answer.free_text}` }));
  } else if (answer.is_corrected) {
    result.push(make("div", { className: "badge", textContent: "corrected by the home" }));
  } else if (answer.understood) {
    result.push(make("div", { className: "badge", textContent: "known to the home" }));
  }
  if (answer.truncated) result.push(make("div", { className: "badge", textContent: CUT_OFF }));
  return make(
    "tr",
    { role: "row" },
    cell("when", time),
    cell("audio number", `${answer.seconds.toFixed(1)}\u00a0s`),
    cell("waited number", duration(answer.waited), ...early),
    cell("parts-of", ...stagesOf(answer.stages, longest)),
    cell("spoken", answer.language ? languageName(answer.language) : ""),
    cell(`result ${answer.outcome}`, ...result),
  );
}

function showAnswers() {
  const longest = Math.max(...state.answers.map((answer) => total(answer.stages)));
  const shown = allShown ? state.answers : state.answers.slice(0, FEW);
  const rows = shown.map((answer) => answerRow(answer, longest));
  $("answers").replaceChildren(...rows);
  $("none").hidden = rows.length > 0;
  $("table").hidden = !rows.length;
  $("more").hidden = state.answers.length <= FEW;
  $("more").textContent = allShown ? "Show fewer" : `Show all ${state.answers.length}`;
  $("more").setAttribute("aria-expanded", String(allShown));
  $("privacy").textContent = state.text_shown
    ? "What was said is shown because --http-text is on. It is kept in memory only."
    : "What was said is not shown, nor kept. The option http_text shows it here.";
}

// -- how long after speech ---------------------------------------------------------------------

function medianOf(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function showNumbers(heard) {
  const early = heard.filter((answer) => answer.early).length;
  const failed = state.answers.length - state.answers.filter((a) => a.outcome !== "failed").length;
  const waits = heard.map((answer) => answer.waited);
  const numbers = heard.length
    ? [
        ["median", duration(medianOf(waits))],
        ["slowest", duration(Math.max(...waits))],
        ["begun when you paused", percent(early / heard.length)],
        ["commands", String(heard.length)],
      ]
    : [["commands", "0"]];
  if (failed) numbers.push(["failed", String(failed)]);
  $("numbers").replaceChildren(
    ...numbers.map(([name, value]) =>
      make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })),
    ),
  );
}

function showPlot() {
  const heard = state.answers.filter((a) => Object.keys(a.stages).length).reverse(); // oldest first
  showNumbers(heard);
  if (!heard.length) {
    $("plot").replaceChildren();
    return;
  }
  const median = medianOf(heard.map((answer) => answer.waited));
  const width = Math.max(280, $("plot").clientWidth);
  const frame = { width, height: 190, left: 52, right: 12, top: 12, bottom: 12 };
  const svg = draw("svg", {
    viewBox: `0 0 ${frame.width} ${frame.height}`,
    role: "img",
    "aria-label":
      `Time from the end of the audio to the answer, of the last ${heard.length} commands: ` +
      `median ${duration(median)}. The table below has the numbers.`,
  });
  const y = drawGrid(svg, frame, heard);
  const line = { class: "median", x1: frame.left, x2: width - frame.right, y1: y(median), y2: y(median) };
  svg.append(draw("line", line));
  drawPoints(svg, frame, heard, y);
  $("plot").replaceChildren(svg);
}

function drawGrid(svg, frame, heard) {
  // Logarithmic: a millisecond and a second are both worth seeing.
  const waits = heard.map((answer) => Math.max(answer.waited, 1e-4));
  const low = Math.min(-3, Math.floor(Math.log10(Math.min(...waits))));
  const high = Math.max(0, Math.ceil(Math.log10(Math.max(...waits))));
  const span = frame.height - frame.top - frame.bottom;
  const y = (seconds) =>
    frame.top + (span * (high - Math.log10(Math.max(seconds, 10 ** low)))) / (high - low);
  for (let decade = low; decade <= high; decade++) {
    const at = y(10 ** decade);
    const label = decade < 0 ? `${10 ** (decade + 3)} ms` : `${10 ** decade} s`;
    svg.append(draw("line", { class: "grid", x1: frame.left, x2: frame.width - frame.right, y1: at, y2: at }));
    svg.append(draw("text", { x: frame.left - 8, y: at + 4, "text-anchor": "end" }, label));
  }
  return y;
}

function drawPoints(svg, frame, heard, y) {
  const step = Math.min(40, (frame.width - frame.left - frame.right) / heard.length);
  const foot = frame.height - frame.bottom;
  heard.forEach((answer, index) => {
    const x = frame.left + step * (index + 0.5);
    const at = y(answer.waited);
    const kind = answer.early ? "early" : "late";
    const point = draw("circle", { class: kind, cx: x, cy: at, r: 4 });
    point.append(draw("title", {}, duration(answer.waited)));
    svg.append(draw("line", { class: kind, x1: x, x2: x, y1: at + 5, y2: foot }), point);
  });
}

// -- asking for the state ----------------------------------------------------------------------

function show() {
  document.title = state.answering ? "wyoming-whisper" : `${PHASES[state.phase]} – wyoming-whisper`;
  $("version").textContent = state.version;
  showPhase(state.phase);
  showWork();
  showFacts();
  showUpstreams();
  showLanguages();
  showAnswers();
  showPlot();
}

async function ask() {
  const response = await fetch("state", { cache: "no-cache" });
  if (!response.ok) throw new Error(await response.text());
  const etag = response.headers.get("ETag");
  if (etag && etag === drawn) {
    showPhase(state.phase); // it may have been away
    return;
  }
  state = await response.json();
  show();
  drawn = etag;
}

let timer = 0;

async function poll() {
  clearTimeout(timer);
  try {
    await ask();
  } catch {
    showPhase("away");
    drawn = "";
  }
  const calm = state && state.answering && !state.building;
  if (!document.hidden) timer = setTimeout(poll, calm ? CALM_POLL_MS : BUSY_POLL_MS);
}

// -- trying it ---------------------------------------------------------------------------------

function answerWith(...elements) {
  $("answer").replaceChildren(...elements);
}

function fail(sentence) {
  answerWith(make("p", { className: "error", textContent: sentence }));
}

async function decode(blob) {
  if (blob.size > MAX_FILE_BYTES) throw new Error("This file is too large for a browser to decode.");
  const context = new OfflineAudioContext(1, 1, SAMPLE_RATE); // what it decodes has its rate
  let audio;
  try {
    audio = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    const mayBeAudio = /^(audio\/|video\/|application\/octet-stream$|$)/.test(blob.type);
    if (!mayBeAudio) throw new Error("This browser finds no audio in that file.");
    // The server may know a format that the browser doesn't.
    return { body: await blob.arrayBuffer(), kind: "file" };
  }
  if (state && audio.duration > state.max_clip_seconds) {
    throw new Error(
      `A clip may last ${state.max_clip_seconds} seconds at most; this one lasts ` +
        `${Math.round(audio.duration)}.`,
    );
  }
  return { body: toPcm(audio), kind: "1" };
}

function energyOf(samples) {
  return samples.reduce((sum, sample) => sum + sample * sample, 0);
}

function mixed(channels) {
  // The average, unless channels cancel each other: then the loudest (as channels.py).
  if (channels.length === 1) return channels[0];
  const average = channels[0].map(
    (_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length,
  );
  const energies = channels.map(energyOf);
  const unrelated = energies.reduce((sum, energy) => sum + energy, 0) / channels.length ** 2;
  if (energyOf(average) >= 0.25 * unrelated) return average;
  return channels[energies.indexOf(Math.max(...energies))];
}

function toPcm(audio) {
  // 16 bits, little-endian, one channel.
  const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
  const pcm = new DataView(new ArrayBuffer(2 * audio.length));
  mixed(channels).forEach((sample, i) => {
    pcm.setInt16(2 * i, Math.max(-32768, Math.min(32767, Math.round(32768 * sample))), true);
  });
  return pcm.buffer;
}

async function send({ body, kind }) {
  const language = $("language").value;
  const response = await fetch(`transcribe${language ? `?language=${language}` : ""}`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream", "X-Wyoming-Whisper": kind },
    body,
  });
  const isJson = (response.headers.get("Content-Type") || "").startsWith("application/json");
  const told = isJson ? await response.json() : { error: await response.text() };
  if (!response.ok) throw new Error(told.error || `The server answered ${response.status}.`);
  return told;
}

function showTranscription(told) {
  const facts = [`${told.seconds.toFixed(1)} s of audio`];
  if (told.text) {
    if (told.language) facts.unshift(languageName(told.language));
    facts.push(`confidence ${percent(Math.exp(told.avg_logprob))}`);
  }
  const silent = told.rejected
    ? "Something was said, but the model is not sure enough of it."
    : "Nobody speaks in it.";
  answerWith(
    make("p", { className: told.text ? "said" : "", textContent: told.text || silent }),
    make("p", { className: "quiet", textContent: facts.join(" · ") }),
    ...stagesOf(told.stages),
  );
}

async function tryClip(blob) {
  $("answer").setAttribute("aria-busy", "true");
  const waiting = state && !state.answering ? "Waiting for the model …" : "Listening …";
  answerWith(make("p", { className: "quiet", textContent: waiting }));
  try {
    showTranscription(await send(await decode(blob)));
  } catch (error) {
    fail(error instanceof TypeError ? "The server can't be reached." : error.message);
  }
  $("answer").removeAttribute("aria-busy");
  poll();
}

// -- recording ---------------------------------------------------------------------------------

let recorder = null;

async function record() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch {
    fail("The browser gives no access to a microphone. Choose a clip instead.");
    return;
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => {
    stream.getTracks().forEach((track) => track.stop());
    showRecording(null);
    tryClip(new Blob(parts, { type: recorder.mimeType }));
  };
  recorder.start();
  answerWith(make("p", { className: "quiet", textContent: "Speak now." }));
  showRecording(Date.now());
}

let clock = 0;

function showRecording(since) {
  clearInterval(clock);
  $("record").setAttribute("aria-pressed", String(since !== null));
  $("record-label").textContent = since === null ? "Record" : "Stop";
  if (since === null) return;
  clock = setInterval(() => {
    const seconds = (Date.now() - since) / 1000;
    $("record-label").textContent = `Stop (${Math.floor(seconds)} s)`;
    if (state && seconds > state.max_clip_seconds - 1) recorder.stop();
  }, 250);
}

function toggleRecording() {
  if (recorder && recorder.state === "recording") recorder.stop();
  else record();
}

// -- the start ---------------------------------------------------------------------------------

function start() {
  const canRecord = navigator.mediaDevices && window.MediaRecorder;
  $("record").disabled = !canRecord;
  $("try-note").textContent = canRecord
    ? "The clip is decoded in this browser, transcribed by this server, and kept by neither."
    : "Browsers lend the microphone only to pages opened with https:// or on this machine itself. " +
      "A clip works here as well.";
  answerWith(make("p", { className: "quiet", textContent: "What is said in it appears here." }));
  $("record").addEventListener("click", toggleRecording);
  $("more").addEventListener("click", () => {
    allShown = !allShown;
    showAnswers();
  });
  $("clip").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) tryClip(file);
    event.target.value = ""; // the same file may be chosen again
  });
  const area = $("try");
  area.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("dropping");
  });
  area.addEventListener("dragleave", () => area.classList.remove("dropping"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (file) tryClip(file);
  });
  document.addEventListener("visibilitychange", () => document.hidden || poll());
  window.addEventListener("resize", () => state && showPlot());
  poll();
}

start();
