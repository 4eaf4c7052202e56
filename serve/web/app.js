// The page: photos in, cards out. Plain JavaScript, nothing loaded from elsewhere.

const MAX_BYTES = 32 * 2 ** 20; // as the server has it for one photo
const BATCH_PHOTOS = 8; // few enough that the first answers come soon
const BATCH_BYTES = 24 * 2 ** 20; // the server takes 64 MiB in all
const REQUESTS = 2; // at once; the server makes batches of them
const ATTEMPTS = 8; // while it is busy
const NARROW = 0.65; // below that, the answer is hardly more than a guess

const $ = (id) => document.getElementById(id);
const items = []; // every photo on the page, in order
const waiting = []; // those not yet sent
let running = 0;
let classes = [];
let key = ""; // kept no longer than the page is open
let busy = false; // whether the last summary had photos to go
let generation = 0; // counts "Clear all", so that late answers find nobody

class Refused extends Error {
  constructor(message, status = 0, answer = null) {
    super(message);
    this.status = status;
    this.answer = answer;
  }
}

function add(files) {
  for (const file of files) {
    const card = $("card").content.firstElementChild.cloneNode(true);
    const item = { file, card, name: file.name || "photo", state: "waiting", url: URL.createObjectURL(file), attempts: 0 };
    const photo = part(item, ".photo");
    photo.addEventListener("error", () => { photo.hidden = true; part(item, ".nothumb").hidden = false; });
    photo.src = item.url;
    part(item, ".name").textContent = item.name;
    part(item, ".name").title = item.name;
    part(item, ".why").addEventListener("click", () => why(item));
    part(item, ".retry").addEventListener("click", () => enqueue([item]));
    part(item, "input").addEventListener("input", () => fade(item));
    items.push(item);
    $("cards").append(card);
    if (file.size > MAX_BYTES) {
      fail(item, `Too large: ${mebibytes(file.size)} MiB, and at most ${MAX_BYTES / 2 ** 20} can be sent.`);
    } else if (file.size === 0) {
      fail(item, "The file is empty.");
    } else {
      enqueue([item]);
    }
  }
  $("results").hidden = items.length === 0;
  document.body.classList.toggle("filled", items.length > 0);
  summarise();
}

function enqueue(chosen) {
  for (const item of chosen) {
    item.attempts = 0;
    part(item, ".retry").hidden = true;
    show(item, "waiting", "Waiting …");
    waiting.push(item);
  }
  summarise();
  // All that is chosen at once goes together.
  queueMicrotask(pump);
}

function pump() {
  while (running < REQUESTS && waiting.length) {
    const batch = [];
    let bytes = 0;
    while (waiting.length && batch.length < BATCH_PHOTOS && (!batch.length || bytes + waiting[0].file.size <= BATCH_BYTES)) {
      bytes += waiting[0].file.size;
      batch.push(waiting.shift());
    }
    running += 1;
    send(batch).finally(() => { running -= 1; pump(); });
  }
}

async function send(batch) {
  const began = generation;
  for (const item of batch) show(item, "sent", "Looking …");
  const form = new FormData();
  for (const item of batch) form.append("photo", item.file, item.name);
  try {
    const answer = await (await ask("v1/classify", { method: "POST", body: form }, batch)).json();
    if (began === generation) settle(batch, answer.predictions);
    notice("");
  } catch (error) {
    if (began !== generation) return;
    if (error.answer?.predictions?.length === batch.length) {
      settle(batch, error.answer.predictions); // none of them could be used; each has its reason
    } else {
      for (const item of batch) fail(item, error.message, true);
      if (error.status === 0 || error.status === 401 || error.status === 503) notice(error.message);
    }
  }
  summarise();
}

function settle(batch, predictions) {
  batch.forEach((item, i) => {
    const found = predictions[i];
    if (found.error) fail(item, plain(found.error));
    else succeed(item, found);
  });
}

// Fetch; while the server is busy, wait as long as it says and try again. Throws `Refused` in plain words.
async function ask(path, options, batch = []) {
  for (let attempt = 1; ; attempt += 1) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...(key && { "x-api-key": key }) } });
    } catch {
      throw new Refused(navigator.onLine ? "The server can't be reached. Is it running?" : "This device is offline.");
    }
    if (response.ok) return response;
    const answer = await response.json().catch(() => null);
    if (response.status === 401) {
      $("key").hidden = false;
      throw new Refused(key ? "The service doesn't know this API key." : "The service asks for its API key.", 401);
    }
    const busy = response.status === 429 || (response.status === 503 && !answer?.error?.includes("no model"));
    if (busy && attempt < ATTEMPTS) {
      for (const item of batch) show(item, "sent", "Server busy, trying again …");
      const asked = Number(response.headers.get("retry-after")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(8, asked * attempt) * (0.75 + Math.random() / 2)));
      continue;
    }
    const words = busy ? "The server is too busy just now." : plain(answer?.error || `The server answered ${response.status}.`);
    throw new Refused(words, response.status, answer);
  }
}

function succeed(item, found) {
  item.found = found;
  show(item, "done", found.label);
  item.card.dataset.class = Math.max(0, classes.indexOf(found.label));
  part(item, ".percent").textContent = percent(found.probability);
  part(item, ".fill").style.width = `${100 * found.probability}%`;
  const others = Object.entries(found.scores).filter(([name]) => name !== found.label);
  const rest = others.map(([name, score]) => `${name} ${percent(score)}`).join(", ");
  item.detail = found.probability < NARROW ? `Hardly sure: ${rest}` : rest;
  part(item, ".detail").textContent = item.detail;
  part(item, ".photo").alt = `${item.name}: ${found.label}`;
  const button = part(item, ".why");
  button.hidden = false;
  button.setAttribute("aria-label", `Why ${found.label}? Show where the model looked in ${item.name}`);
}

function fail(item, reason, again = false) {
  item.error = reason;
  show(item, "failed", "Not classified");
  part(item, ".detail").textContent = reason;
  const button = part(item, ".retry");
  button.hidden = !again;
  button.setAttribute("aria-label", `Try ${item.name} again`);
  item.again = again;
}

function show(item, state, label) {
  item.state = state;
  item.card.dataset.state = state;
  part(item, ".label").textContent = label;
  part(item, ".percent").textContent = "";
  if (state !== "failed") { part(item, ".detail").textContent = ""; item.error = ""; item.again = false; }
}

async function why(item) {
  const button = part(item, ".why");
  const heat = part(item, ".heat");
  if (!item.heat) {
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    button.textContent = "Looking …";
    try {
      const options = { method: "POST", body: item.file, headers: { "content-type": "application/octet-stream" } };
      const response = await ask("v1/explain", options);
      const label = decodeURIComponent(response.headers.get("pawcast-label"));
      item.heat = URL.createObjectURL(await response.blob());
      heat.src = item.heat;
      heat.alt = `Heat map over the photo: bright is what spoke for ${label}`;
      // Only where the model changed meanwhile do the two differ.
      const differs = label !== item.found.label ? ` The model now says ${label}.` : "";
      part(item, ".detail").textContent = `${item.detail}. Bright is what spoke for ${label}.${differs}`;
    } catch (error) {
      button.textContent = "Why?";
      part(item, ".detail").textContent = `No heat map: ${error.message}`;
      return;
    } finally {
      button.removeAttribute("aria-busy");
    }
    heat.hidden = true;
    fade(item);
  }
  heat.hidden = !heat.hidden;
  item.card.classList.toggle("explained", !heat.hidden);
  button.setAttribute("aria-pressed", String(!heat.hidden));
  button.setAttribute("aria-label", `Heat map of ${item.name}`);
  button.textContent = "Heat map";
  part(item, ".strength").hidden = heat.hidden;
}

function fade(item) {
  item.card.style.setProperty("--strength", part(item, "input").value / 100);
}

function summarise() {
  const counts = new Map(classes.map((name) => [name, 0]));
  let left = 0;
  let failed = 0;
  for (const item of items) {
    if (item.state === "done") counts.set(item.found.label, (counts.get(item.found.label) || 0) + 1);
    else if (item.state === "failed") failed += 1;
    else left += 1;
  }
  // "cat: 2", since nobody knows the plural of any class.
  if (failed) counts.set("failed", failed);
  if (left) counts.set("to go", left);
  const words = [...counts].map(([name, count]) => `${name}: ${count.toLocaleString("en")}`).join(", ");
  $("summary").textContent = words;
  // Told when it begins and when it is done, and not after every photo.
  if (left && !busy) $("spoken").textContent = `Classifying ${left} photos.`;
  else if (!left && items.length) $("spoken").textContent = `Done. ${words}`;
  busy = left > 0;
  $("again").hidden = !items.some((item) => item.again);
  $("save").disabled = left > 0;
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
  $("spoken").textContent = "All cleared.";
  notice("");
  $("choose").focus();
}

function save() {
  const names = classes.length ? classes : [...new Set(items.flatMap((item) => Object.keys(item.found?.scores || {})))];
  const rows = [["file", "label", "probability", ...names, "error"]];
  for (const { name, found, state, error } of items) {
    const scores = names.map((key) => found?.scores[key] ?? "");
    rows.push(state === "done" ? [name, found.label, found.probability, ...scores, ""] : [name, "", "", ...names.map(() => ""), error]);
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`], { type: "text/csv" }));
  link.download = "pawcast.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// A file may be called anything: a cell that begins like a formula would be run by a spreadsheet.
function cell(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function plain(error) {
  if (error.startsWith("not an image")) return "This is no image that can be read. JPEG, PNG, WebP, BMP, GIF and TIFF can.";
  if (error.includes("decoded (truncated)")) return "The file is cut short: a part of the picture is missing.";
  const damaged = /^can't be decoded \((.*)\)$/.exec(error);
  if (damaged) return `The file is damaged: ${damaged[1]}.`;
  if (error.startsWith("The service has no model")) return "The server has no model to answer with yet.";
  const words = error.charAt(0).toUpperCase() + error.slice(1);
  return /[.!?)]$/.test(words) ? words : `${words}.`;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

const part = (item, selector) => item.card.querySelector(selector);
const mebibytes = (bytes) => (bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 });

// Never 100 % and never 0 %: no network is as sure as that.
function percent(value) {
  if (value >= 0.9995) return "> 99.9 %";
  if (value < 0.0005) return "< 0.1 %";
  return `${(100 * value).toFixed(1)} %`;
}

async function introduce() {
  try {
    const version = await (await ask("v1/model", {})).json();
    classes = version.classes;
    $("ask").textContent = `${classes.map((name) => name.charAt(0).toUpperCase() + name.slice(1)).join(" or ")}?`;
    const name = document.createElement("b");
    name.textContent = `${version.model}@${version.version}`;
    const accuracy = version.metrics.val_acc;
    $("model").replaceChildren("Model ", name, accuracy === undefined ? "" : `, right on ${percent(accuracy)} of its validation photos`);
    summarise();
  } catch (error) {
    $("model").textContent = error.status === 503 ? "No model is loaded yet; it will be found as soon as there is one." : error.message;
    if (error.status !== 401) setTimeout(introduce, 5_000); // with a key it is asked again
  }
}

for (const id of ["choose", "camera"]) {
  $(id).addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
}
$("clear").addEventListener("click", clear);
$("save").addEventListener("click", save);
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("secret").value.trim();
  $("key").hidden = true;
  notice("");
  introduce();
  enqueue(items.filter((item) => item.again));
});
$("again").addEventListener("click", () => enqueue(items.filter((item) => item.again)));

const carriesFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
let depth = 0; // entering a child fires before leaving its parent
addEventListener("dragenter", (event) => { if (carriesFiles(event)) { depth += 1; document.body.classList.add("dragging"); } });
addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) document.body.classList.remove("dragging"); });
addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  depth = 0;
  document.body.classList.remove("dragging");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  add(event.dataTransfer.files);
});
addEventListener("paste", (event) => { if (event.clipboardData?.files.length) add(event.clipboardData.files); });

introduce();
