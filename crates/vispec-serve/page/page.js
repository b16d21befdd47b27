// Asks the server about an image and shows which text was drafted.
"use strict";

const $ = (id) => document.getElementById(id);
// Pixels of the height of a cycle's bar for each accepted token.
const BAR = 8;
let image = null;
let running = null;

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

function setImage(file) {
  if (file && !file.type.startsWith("image/")) {
    return fail("This is not an image.");
  }
  image = null;
  $("preview").hidden = !file;
  $("hint").hidden = Boolean(file);
  $("remove").disabled = !file;
  if (!file) {
    $("file").value = "";
    return;
  }
  const reader = new FileReader();
  reader.onload = () => {
    image = reader.result;
    $("preview").src = image;
  };
  reader.readAsDataURL(file);
}

function fail(message) {
  $("answer").classList.add("error");
  $("answer").textContent = message;
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

// Text of a cycle, drafted pieces marked; text is never read as HTML.
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

// The data of server-sent events, one by one.
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

function body() {
  const content = [{ type: "text", text: $("question").value }];
  if (image) content.unshift({ type: "image_url", image_url: { url: image } });
  return JSON.stringify({
    messages: [{ role: "user", content }],
    temperature: Number($("temperature").value),
    seed: Number($("seed").value),
    stream: true,
    stream_options: { include_usage: true },
    vispec: { detail: true },
  });
}

async function ask() {
  running = new AbortController();
  const started = performance.now();
  let cycles = 0;
  let accepted = 0;
  let first = null;
  let final = null;
  let tokens = null;
  const tau = () => (final ? final.tau : accepted / Math.max(cycles, 1));
  const update = () => show({
    ...(first !== null && { "first token": `${first.toFixed(0)} ms` }),
    ...(tokens !== null && { tokens }),
    cycles,
    tau: tau().toFixed(2),
    "tokens per cycle": (cycles ? tau() + 1 : 0).toFixed(2),
    ...(final && { speed: `${final.tokens_per_second.toFixed(1)} tokens/s` }),
  });
  const response = await fetch("/v1/chat/completions", {
    method: "POST", headers: headers(), body: body(), signal: running.signal,
  });
  if (!response.ok) throw new Error((await response.json()).error.message);
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.usage) tokens = chunk.usage.completion_tokens;
    const choice = chunk.choices[0];
    if (choice && choice.finish_reason) {
      final = chunk.vispec;
      cycles = final.cycles;
    } else if (choice && chunk.vispec) {
      if (first === null) first = performance.now() - started;
      if (chunk.vispec.nodes > 0) cycles += 1;
      accepted += chunk.vispec.accepted;
      append(chunk.vispec, choice.delta.content);
    }
    update();
  }
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) return;
  $("answer").classList.remove("error");
  $("answer").replaceChildren();
  $("cycles").replaceChildren();
  show({});
  $("legend").hidden = false;
  $("send").disabled = true;
  $("stop").disabled = false;
  try {
    await ask();
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  } finally {
    running = null;
    $("send").disabled = false;
    $("stop").disabled = true;
  }
});
$("stop").addEventListener("click", () => running && running.abort());
$("remove").addEventListener("click", () => setImage(null));
$("file").addEventListener("change", () => setImage($("file").files[0]));
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
// An image that misses the frame must not take the page away.
for (const kind of ["dragover", "drop"]) {
  window.addEventListener(kind, (event) => event.preventDefault());
}
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") setImage(event.dataTransfer.files[0]);
  });
}
fetch("/v1/models", { headers: headers() })
  .then((response) => (response.ok ? response.json() : null))
  .then((list) => { if (list) $("model").textContent = list.data[0].id; })
  .catch(() => {});
