// The web page: classifies photos with /v1/classify and shows a card for each photo.
// Plain JavaScript without dependencies.

const MAX_BYTES = 32 * 2 ** 20; // the server's limit for one photo
const BATCH_PHOTOS = 8; // per request: few, so that the first results come soon
const BATCH_BYTES = 24 * 2 ** 20; // per request: the server accepts 64 MiB
const MAX_REQUESTS = 2; // at once
const MAX_ATTEMPTS = 8; // per request, while the server is busy
const UNSURE_BELOW = 0.65; // a less probable label is shown as unsure

const $ = (id) => document.getElementById(id);
const items = []; // all photos on the page, in order
const waiting = []; // photos not yet sent
let runningRequests = 0;
let classes = [];
let apiKey = ""; // in memory only
let wasPending = false; // whether the last summary had unclassified photos
let generation = 0; // number of "Clear all"; responses of an older generation are dropped

class RequestError extends Error {
  constructor(message, status = 0, body = null) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

function add(files) {
  for (const file of files) {
    const card = $("card").content.firstElementChild.cloneNode(true);
    const item = { file, card, name: file.name || "photo", state: "waiting", url: URL.createObjectURL(file), attempts: 0 };
    const photo = part(item, ".photo");
    photo.addEventListener("error", () => { photo.hidden = true; part(item, ".no-preview").hidden = false; });
    photo.src = item.url;
    part(item, ".name").textContent = item.name;
    part(item, ".name").title = item.name;
    part(item, ".why").addEventListener("click", () => toggleHeatMap(item));
    part(item, ".retry").addEventListener("click", () => enqueue([item]));
    part(item, "input").addEventListener("input", () => setStrength(item));
    items.push(item);
    $("cards").append(card);
    if (file.size > MAX_BYTES) {
      fail(item, `Too large: ${mebibytes(file.size)} MiB. The limit is ${MAX_BYTES / 2 ** 20} MiB.`);
    } else if (file.size === 0) {
      fail(item, "The file is empty.");
    } else {
      enqueue([item]);
    }
  }
  $("results").hidden = items.length === 0;
  document.body.classList.toggle("filled", items.length > 0);
  updateSummary();
}

function enqueue(added) {
  for (const item of added) {
    item.attempts = 0;
    part(item, ".retry").hidden = true;
    show(item, "waiting", "Waiting …");
    waiting.push(item);
  }
  updateSummary();
  // Deferred, so that photos added together share requests.
  queueMicrotask(sendWaiting);
}

function sendWaiting() {
  while (runningRequests < MAX_REQUESTS && waiting.length) {
    const batch = [];
    let bytes = 0;
    while (waiting.length && batch.length < BATCH_PHOTOS && (!batch.length || bytes + waiting[0].file.size <= BATCH_BYTES)) {
      bytes += waiting[0].file.size;
      batch.push(waiting.shift());
    }
    runningRequests += 1;
    classify(batch).finally(() => { runningRequests -= 1; sendWaiting(); });
  }
}

async function classify(batch) {
  const startedIn = generation;
  for (const item of batch) show(item, "sent", "Classifying …");
  const form = new FormData();
  for (const item of batch) form.append("photo", item.file, item.name);
  try {
    const body = await (await request("v1/classify", { method: "POST", body: form }, batch)).json();
    if (startedIn === generation) showPredictions(batch, body.predictions);
    notice("");
  } catch (error) {
    if (startedIn !== generation) return;
    if (error.body?.predictions?.length === batch.length) {
      showPredictions(batch, error.body.predictions); // 422: every photo has its own error
    } else {
      for (const item of batch) fail(item, error.message, true);
      if (error.status === 0 || error.status === 401 || error.status === 503) notice(error.message);
    }
  }
  updateSummary();
}

function showPredictions(batch, predictions) {
  batch.forEach((item, i) => {
    const prediction = predictions[i];
    if (prediction.error) fail(item, explainError(prediction.error));
    else succeed(item, prediction);
  });
}

// Fetch. While the server is busy, wait for as long as Retry-After says and try again.
// Throws a RequestError with a message for the user.
async function request(path, options, batch = []) {
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...(apiKey && { "x-api-key": apiKey }) } });
    } catch {
      throw new RequestError(navigator.onLine ? "The server can't be reached. Is it running?" : "This device is offline.");
    }
    if (response.ok) return response;
    const body = await response.json().catch(() => null);
    if (response.status === 401) {
      $("key").hidden = false;
      throw new RequestError(apiKey ? "The service doesn't accept this API key." : "The service asks for its API key.", 401);
    }
    const busy = response.status === 429 || (response.status === 503 && !body?.error?.includes("no model"));
    if (busy && attempt < MAX_ATTEMPTS) {
      for (const item of batch) show(item, "sent", "Server busy, retrying …");
      const retryAfter = Number(response.headers.get("retry-after")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(8, retryAfter * attempt) * (0.75 + Math.random() / 2)));
      continue;
    }
    const message = busy ? "The server is too busy. Try again later." : explainError(body?.error || `The server answered ${response.status}.`);
    throw new RequestError(message, response.status, body);
  }
}

function succeed(item, prediction) {
  item.prediction = prediction;
  show(item, "done", prediction.label);
  item.card.dataset.class = Math.max(0, classes.indexOf(prediction.label));
  part(item, ".percent").textContent = percent(prediction.probability);
  part(item, ".fill").style.width = `${100 * prediction.probability}%`;
  const others = Object.entries(prediction.scores).filter(([name]) => name !== prediction.label);
  const otherScores = others.map(([name, score]) => `${name} ${percent(score)}`).join(", ");
  item.detail = prediction.probability < UNSURE_BELOW ? `Unsure: ${otherScores}` : otherScores;
  part(item, ".detail").textContent = item.detail;
  part(item, ".photo").alt = `${item.name}: ${prediction.label}`;
  const button = part(item, ".why");
  button.hidden = false;
  button.setAttribute("aria-label", `Why ${prediction.label}? Show the regions of ${item.name} that decided`);
}

function fail(item, reason, retryable = false) {
  item.error = reason;
  show(item, "failed", "Not classified");
  part(item, ".detail").textContent = reason;
  const button = part(item, ".retry");
  button.hidden = !retryable;
  button.setAttribute("aria-label", `Retry ${item.name}`);
  item.retryable = retryable;
}

function show(item, state, label) {
  item.state = state;
  item.card.dataset.state = state;
  part(item, ".label").textContent = label;
  part(item, ".percent").textContent = "";
  if (state !== "failed") { part(item, ".detail").textContent = ""; item.error = ""; item.retryable = false; }
}

async function toggleHeatMap(item) {
  const button = part(item, ".why");
  const heat = part(item, ".heat");
  if (!item.heat) {
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    button.textContent = "Computing …";
    try {
      const options = { method: "POST", body: item.file, headers: { "content-type": "application/octet-stream" } };
      const response = await request("v1/explain", options);
      const label = decodeURIComponent(response.headers.get("pawcast-label"));
      item.heat = URL.createObjectURL(await response.blob());
      heat.src = item.heat;
      heat.alt = `Heat map: bright regions speak for ${label}`;
      // They differ only if another model version has been loaded since.
      const differs = label !== item.prediction.label ? ` The model now says ${label}.` : "";
      part(item, ".detail").textContent = `${item.detail}. Bright regions speak for ${label}.${differs}`;
    } catch (error) {
      button.textContent = "Why?";
      part(item, ".detail").textContent = `The heat map failed: ${error.message}`;
      return;
    } finally {
      button.removeAttribute("aria-busy");
    }
    heat.hidden = true;
    setStrength(item);
  }
  heat.hidden = !heat.hidden;
  item.card.classList.toggle("explained", !heat.hidden);
  button.setAttribute("aria-pressed", String(!heat.hidden));
  button.setAttribute("aria-label", `Heat map of ${item.name}`);
  button.textContent = "Heat map";
  part(item, ".strength").hidden = heat.hidden;
}

function setStrength(item) {
  item.card.style.setProperty("--strength", part(item, "input").value / 100);
}

function updateSummary() {
  const counts = new Map(classes.map((name) => [name, 0]));
  let pending = 0;
  let failed = 0;
  for (const item of items) {
    if (item.state === "done") counts.set(item.prediction.label, (counts.get(item.prediction.label) || 0) + 1);
    else if (item.state === "failed") failed += 1;
    else pending += 1;
  }
  // "cat: 2" rather than "2 cats": the plural of a class name is unknown.
  if (failed) counts.set("failed", failed);
  if (pending) counts.set("remaining", pending);
  const summary = [...counts].map(([name, count]) => `${name}: ${count.toLocaleString("en")}`).join(", ");
  $("summary").textContent = summary;
  // Screen readers announce the start and the end, not every photo.
  if (pending && !wasPending) $("status").textContent = `Classifying ${pending} photos.`;
  else if (!pending && items.length) $("status").textContent = `Done. ${summary}`;
  wasPending = pending > 0;
  $("retry-all").hidden = !items.some((item) => item.retryable);
  $("save").disabled = pending > 0;
}

function clear() {
  generation += 1;
  for (const item of items) {
    URL.revokeObjectURL(item.url);
    if (item.heat) URL.revokeObjectURL(item.heat);
  }
  items.length = 0;
  waiting.length = 0;
  $("cards").replaceChildren();
  $("results").hidden = true;
  document.body.classList.remove("filled");
  $("status").textContent = "All photos removed.";
  notice("");
  $("choose").focus();
}

function save() {
  const names = classes.length ? classes : [...new Set(items.flatMap((item) => Object.keys(item.prediction?.scores || {})))];
  const rows = [["file", "label", "probability", ...names, "error"]];
  for (const { name, prediction, state, error } of items) {
    const scores = names.map((label) => prediction?.scores[label] ?? "");
    rows.push(state === "done" ? [name, prediction.label, prediction.probability, ...scores, ""] : [name, "", "", ...names.map(() => ""), error]);
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`], { type: "text/csv" }));
  link.download = "pawcast.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Spreadsheets would run a file name that begins like a formula; a quote prevents that.
function cell(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// Turn an error of the API into a message for the user.
function explainError(error) {
  if (error.startsWith("not an image")) return "This file is not an image that can be read. Use JPEG, PNG, WebP, BMP, GIF or TIFF.";
  if (error.includes("decoded (truncated)")) return "The file is truncated: part of the image is missing.";
  const damaged = /^can't be decoded \((.*)\)$/.exec(error);
  if (damaged) return `The file is damaged: ${damaged[1]}.`;
  if (error.startsWith("The service has no model")) return "The server has no model yet.";
  const message = error.charAt(0).toUpperCase() + error.slice(1);
  return /[.!?)]$/.test(message) ? message : `${message}.`;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

const part = (item, selector) => item.card.querySelector(selector);
const mebibytes = (bytes) => (bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 });

// Never 100 % or 0 %: a model is never certain.
function percent(value) {
  if (value >= 0.9995) return "> 99.9 %";
  if (value < 0.0005) return "< 0.1 %";
  return `${(100 * value).toFixed(1)} %`;
}

async function showModel() {
  try {
    const version = await (await request("v1/model", {})).json();
    classes = version.classes;
    $("question").textContent = `${classes.map((name) => name.charAt(0).toUpperCase() + name.slice(1)).join(" or ")}?`;
    const name = document.createElement("b");
    name.textContent = `${version.model}@${version.version}`;
    const accuracy = version.metrics.val_acc;
    $("model").replaceChildren("Model ", name, accuracy === undefined ? "" : `, ${percent(accuracy)} accurate on its validation photos`);
    updateSummary();
  } catch (error) {
    $("model").textContent = error.status === 503 ? "No model is loaded yet. The page shows it as soon as there is one." : error.message;
    if (error.status !== 401) setTimeout(showModel, 5_000); // otherwise submitting the key retries
  }
}

for (const id of ["choose", "camera"]) {
  $(id).addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
}
$("clear").addEventListener("click", clear);
$("save").addEventListener("click", save);
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey = $("secret").value.trim();
  $("key").hidden = true;
  notice("");
  showModel();
  enqueue(items.filter((item) => item.retryable));
});
$("retry-all").addEventListener("click", () => enqueue(items.filter((item) => item.retryable)));

const carriesFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
let dragDepth = 0; // a child's dragenter fires before its parent's dragleave
addEventListener("dragenter", (event) => { if (carriesFiles(event)) { dragDepth += 1; document.body.classList.add("dragging"); } });
addEventListener("dragleave", () => { dragDepth = Math.max(0, dragDepth - 1); if (!dragDepth) document.body.classList.remove("dragging"); });
addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  dragDepth = 0;
  document.body.classList.remove("dragging");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  add(event.dataTransfer.files);
});
addEventListener("paste", (event) => { if (event.clipboardData?.files.length) add(event.clipboardData.files); });

showModel();
