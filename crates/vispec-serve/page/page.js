// Asks the server about pictures and videos, turn by turn, and shows which text was drafted.
"use strict";

const $ = (id) => document.getElementById(id);
// Height of a cycle's bar in pixels per accepted token.
const BAR = 8;
// Milliseconds between polls of the queue.
const LOOK = 2000;
// Maximum number of frames in the preview of a video.
const SHOWN = 8;

// The conversation; failed turns are not part of it.
let messages = [];
// The picture or video of the next question, in the form of the API.
let media = null;
let running = null;
// The last answer: the messages that it answers, its text and its speed.
let last = null;

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

function setMedia(part) {
  media = part;
  $("preview").hidden = !part;
  $("hint").hidden = Boolean(part);
  $("remove").disabled = !part;
  $("rate").hidden = part?.type !== "video";
  $("preview").replaceChildren(...(part ? [view(part)] : []));
  $("file").value = "";
  fail(null);
}

// Creates the preview of a picture or a video; the browser plays animations.
function view(part) {
  const picture = (url, alt) => {
    const element = document.createElement("img");
    element.src = url;
    element.alt = alt;
    return element;
  };
  if (part.type === "image_url") return picture(part.image_url.url, "The picture of this question");
  if (part.type === "video_url") return picture(part.video_url.url, "The video of this question");
  const frames = part.video;
  const shown = Math.min(frames.length, SHOWN);
  const film = document.createElement("span");
  film.className = "film";
  for (let index = 0; index < shown; index += 1) {
    const place = shown === 1 ? 0 : Math.round((index * (frames.length - 1)) / (shown - 1));
    film.append(picture(frames[place], `Frame ${place + 1} of ${frames.length}`));
  }
  const count = document.createElement("span");
  count.textContent = `${frames.length} frames${part.fps ? `, ${part.fps} per second` : ""}`;
  film.append(count);
  return film;
}

// Returns whether a GIF or WebP file is animated; the server reads such files as videos.
function isAnimated(bytes) {
  const word = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  // The animation flag of an extended WebP file.
  if (word(0) === "RIFF" && word(8) === "WEBP") return word(12) === "VP8X" && (bytes[20] & 2) !== 0;
  if (word(0) !== "GIF8") return false;
  // The size of a colour table has three bits; each colour takes three bytes.
  const table = (flags) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let pictures = 0;
  let at = 13 + table(bytes[10]);
  while (at < bytes.length && pictures < 2) {
    if (bytes[at] === 0x2c) {
      pictures += 1;
      at += 11 + table(bytes[at + 9]);
    } else if (bytes[at] === 0x21) {
      at += 2;
    } else {
      break;
    }
    // Data blocks end with an empty block.
    while (bytes[at]) at += 1 + bytes[at];
    at += 1;
  }
  return pictures > 1;
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

// Several files are the frames of a video, in the order of their names.
async function setFiles(list) {
  const files = [...list].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  if (!files.length) return;
  const other = files.find((file) => !file.type.startsWith("image/"));
  if (other) {
    fail(`${other.name} is not an image. Videos are animated GIF or WebP files, or frames that are chosen together.`);
    return;
  }
  try {
    const urls = await Promise.all(files.map(dataUrl));
    if (urls.length > 1) {
      setMedia({ type: "video", video: urls });
    } else if (isAnimated(new Uint8Array(await files[0].arrayBuffer()))) {
      setMedia({ type: "video_url", video_url: { url: urls[0] } });
    } else {
      setMedia({ type: "image_url", image_url: { url: urls[0] } });
    }
  } catch (error) {
    fail(error.message);
  }
}

// Draws a sample picture of some shapes.
function sample() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 224;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#f4f1e8";
  pen.fillRect(0, 0, 224, 224);
  pen.fillStyle = "#c62828";
  pen.beginPath();
  pen.arc(64, 72, 40, 0, 2 * Math.PI);
  pen.fill();
  pen.fillStyle = "#1e4fbf";
  pen.fillRect(128, 32, 72, 72);
  pen.fillStyle = "#2e7d32";
  pen.beginPath();
  pen.moveTo(112, 128);
  pen.lineTo(160, 204);
  pen.lineTo(64, 204);
  pen.fill();
  return canvas.toDataURL("image/png");
}

function fail(message) {
  $("error").textContent = message ?? "";
  $("error").hidden = !message;
}

function say(status, busy) {
  $("status").textContent = status;
  $("status").classList.toggle("busy", busy);
}

function show(stats) {
  $("stats").replaceChildren(...Object.entries(stats).map(([name, value]) => {
    const row = document.createElement("div");
    const term = document.createElement("dt");
    const data = document.createElement("dd");
    term.textContent = name;
    data.textContent = value;
    row.append(term, data);
    return row;
  }));
}

// Shows a question; its text is never interpreted as HTML.
function showQuestion(element, message) {
  element.replaceChildren();
  for (const part of message.content) {
    element.append(part.type === "text" ? part.text : view(part));
  }
  element.hidden = false;
}

// Appends the text of a cycle and marks drafted pieces.
function append(detail, content) {
  const pieces = detail ? detail.pieces : [{ text: content, drafted: false }];
  for (const piece of pieces) {
    const span = document.createElement("span");
    span.textContent = piece.text;
    if (piece.drafted) span.className = "drafted";
    $("answer").append(span);
  }
  if (!detail || detail.nodes === 0) return;
  const end = document.createElement("span");
  end.className = "cycle-end";
  end.textContent = "|";
  $("answer").append(end);
  const bar = document.createElement("span");
  bar.style.height = `${detail.accepted * BAR + 2}px`;
  bar.title = `${detail.accepted} accepted of ${detail.nodes} nodes`;
  $("cycles").append(bar);
}

// Yields the data of server-sent events one by one.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ")) yield line.slice(6);
    }
  }
}

// Returns the state of the server's queue, if available.
async function queue(signal) {
  const response = await fetch("/metrics", { headers: headers(), signal });
  if (!response.ok) return "";
  const text = await response.text();
  const figure = (name) => Number(text.match(new RegExp(`^vispec_${name} (\\d+)`, "m"))?.[1] ?? 0);
  return `; ${figure("num_requests_running")} running, ${figure("num_requests_waiting")} waiting`;
}

// Regularly shows how long the answer has been awaited; returns a function that stops this.
function waiting(signal) {
  const started = performance.now();
  let seen = "";
  const tell = () => say(`Waiting for ${Math.round((performance.now() - started) / 1000)} s${seen}`, true);
  const look = () => queue(signal).then((text) => { seen = text; }, () => {});
  tell();
  const timers = [setInterval(tell, 1000), setInterval(look, LOOK)];
  return () => timers.forEach(clearInterval);
}

// Sends a request and passes on each chunk. Throws the message of a refusal.
async function request(asked, speculation, signal, chunk) {
  const stop = waiting(signal);
  let response;
  try {
    response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: headers(),
      body: JSON.stringify({
        messages: asked,
        temperature: Number($("temperature").value),
        seed: Number($("seed").value),
        stream: true,
        stream_options: { include_usage: true },
        speculation,
        vispec: { detail: true },
      }),
      signal,
    });
  } finally {
    stop();
  }
  if (!response.ok) {
    const error = await response.json().catch(() => null);
    throw new Error(error?.error?.message ?? `The server returned status ${response.status}.`);
  }
  say("Answering", true);
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const value = JSON.parse(data);
    if (value.error) throw new Error(value.error.message);
    chunk(value);
  }
  throw new Error("The answer was cut off.");
}

async function answer(asked, signal) {
  const started = performance.now();
  let cycles = 0;
  let accepted = 0;
  let first = null;
  let final = null;
  let tokens = null;
  let text = "";
  const tau = () => (final ? final.tau : accepted / Math.max(cycles, 1));
  const update = () => show({
    ...(first !== null && { "first token": `${first.toFixed(0)} ms` }),
    ...(tokens !== null && { tokens }),
    cycles,
    tau: tau().toFixed(2),
    "tokens per cycle": (cycles ? tau() + 1 : 0).toFixed(2),
    ...(final?.speculation_reasons.length && {
      "drafting": final.speculation_reasons.join(", ").replaceAll("_", " "),
    }),
    ...(final && { speed: `${final.tokens_per_second.toFixed(1)} tokens/s` }),
  });
  const said = () => ({ text, speed: final?.tokens_per_second });
  try {
    await request(asked, "on", signal, (chunk) => {
      if (chunk.usage) tokens = chunk.usage.completion_tokens;
      const choice = chunk.choices[0];
      if (choice && choice.finish_reason) {
        final = chunk.vispec;
        cycles = final.cycles;
      } else if (choice && chunk.vispec) {
        if (first === null) first = performance.now() - started;
        if (chunk.vispec.nodes > 0) cycles += 1;
        accepted += chunk.vispec.accepted;
        text += choice.delta.content ?? "";
        append(chunk.vispec, choice.delta.content);
      }
      update();
    });
  } catch (error) {
    // The text before the user stopped the answer is kept.
    if (error.name === "AbortError" && text) return said();
    throw error;
  }
  return said();
}

// Runs one task at a time, and leaves the page ready for the next, however it ends.
async function alone(work) {
  if (running) return;
  running = new AbortController();
  fail(null);
  const buttons = ["send", "compare", "again"];
  const before = buttons.map((id) => $(id).disabled);
  buttons.forEach((id) => { $(id).disabled = true; });
  $("stop").disabled = false;
  try {
    await work(running.signal);
  } catch (error) {
    if (error.name !== "AbortError") {
      const lost = error instanceof TypeError;
      fail(lost ? "The server cannot be reached." : error.message);
    }
  } finally {
    running = null;
    buttons.forEach((id, index) => { $(id).disabled = before[index]; });
    $("again").disabled = !messages.length;
    $("compare").disabled = !last?.speed;
    $("stop").disabled = true;
    say("", false);
  }
}

// Moves the last turn up to the earlier ones.
function archive() {
  if (!last) return;
  const question = document.createElement("p");
  question.className = "said";
  showQuestion(question, last.asked.at(-1));
  const answered = document.createElement("div");
  answered.className = "answered";
  answered.textContent = last.text;
  $("talk").append(question, answered);
  last = null;
}

function clear() {
  $("asked").hidden = true;
  $("asked").replaceChildren();
  $("answer").replaceChildren();
  $("cycles").replaceChildren();
  $("compared").textContent = "";
  $("figures").hidden = true;
  show({});
}

async function ask(signal) {
  const content = [{ type: "text", text: $("question").value }];
  // Frames have no times.
  if (media?.type === "video") media.fps = Number($("fps").value);
  if (media) content.unshift(media);
  const question = { role: "user", content };
  const asked = [...messages, question];
  archive();
  clear();
  showQuestion($("asked"), question);
  $("figures").hidden = false;
  try {
    const { text, speed } = await answer(asked, signal);
    messages = [...asked, { role: "assistant", content: text }];
    last = { asked, text, speed };
    $("question").value = "";
    setMedia(null);
  } catch (error) {
    // The question, picture or video is still in its field.
    clear();
    throw error;
  }
}

async function compare(signal) {
  const { asked, text, speed } = last;
  let plain = "";
  let final = null;
  $("compared").textContent = "";
  await request(asked, "off", signal, (chunk) => {
    const choice = chunk.choices[0];
    plain += choice?.delta?.content ?? "";
    if (choice?.finish_reason) final = chunk.vispec;
  });
  const factor = (speed / final.tokens_per_second).toPrecision(2);
  const same = plain === text ? "the same text" : "a different text";
  $("compared").textContent =
    `plain: ${final.tokens_per_second.toFixed(1)} tokens/s; drafted: ${factor} times that, ${same}`;
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("question").value.trim()) alone(ask);
});
$("compare").addEventListener("click", () => alone(compare));
$("stop").addEventListener("click", () => running && running.abort());
$("again").addEventListener("click", () => {
  messages = [];
  last = null;
  $("talk").replaceChildren();
  clear();
  setMedia(null);
  $("again").disabled = true;
  $("question").focus();
});
$("sample").addEventListener("click", () => {
  setMedia({ type: "image_url", image_url: { url: sample() } });
});
$("remove").addEventListener("click", () => setMedia(null));
$("file").addEventListener("change", () => setFiles($("file").files));
$("question").addEventListener("keydown", (event) => {
  // Enter may also finish a composed word of an input method.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
window.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
});
window.addEventListener("paste", (event) => {
  const all = [...(event.clipboardData?.files ?? [])];
  const files = all.filter((file) => file.type.startsWith("image/"));
  if (!files.length) return;
  event.preventDefault();
  setFiles(files);
});
// An image dropped beside the field must not replace the page.
for (const kind of ["dragover", "drop"]) {
  window.addEventListener(kind, (event) => event.preventDefault());
}
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") setFiles(event.dataTransfer.files);
  });
}
fetch("/v1/models", { headers: headers() })
  .then((response) => (response.ok ? response.json() : null))
  .then((list) => { if (list) $("model").textContent = list.data[0].id; })
  .catch(() => {});
