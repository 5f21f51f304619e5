// The page: what is searched and looked at is in the address, and the page shows what the address says.
"use strict";

const PAGE = 24; // pictures that are asked for at a time
const TRIES = 5; // when the server is busy
const POLL = 1000; // milliseconds between two looks at the index while it grows
const SENT_SIDE = 640; // pixels of a picture that was dropped in: the model sees no more
const HEAT = 256; // pixels of the heat map's side

const $ = (id) => document.getElementById(id);
const viewer = $("viewer");

// ---- the address

/** What the address says. */
function state() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

function address(changes, from = state()) {
  const all = { ...from, ...changes };
  const kept = Object.entries(all).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(kept).toString();
  return query ? `/?${query}` : "/";
}

function go(changes, from) {
  const to = address(changes, from);
  if (to !== location.pathname + location.search) history.pushState(null, "", to);
  show();
}

const VIEWER = { open: "", phrase: "", ask: "", head: "" };

// ---- asking the server

async function ask(path, options = {}) {
  for (let tries = 1; ; tries++) {
    let answer;
    try {
      answer = await fetch(path, options);
    } catch (problem) {
      if (problem.name === "AbortError") throw problem;
      throw new Error("The server does not answer; does it still run?");
    }
    if (answer.ok) return answer.json();
    if (answer.status === 401) location.assign("/login");
    if (answer.status === 429 && tries < TRIES) {
      await new Promise((done) => setTimeout(done, 1000 * (Number(answer.headers.get("retry-after")) || 1)));
      continue;
    }
    const said = await answer.json().catch(() => null);
    throw new Error(said?.error?.message ?? `The server says ${answer.status}.`);
  }
}

/** Asks about a picture of the index, or one that was dropped in. */
function about(what, picture, parameters, signal) {
  const query = new URLSearchParams(parameters);
  if (picture.startsWith("sent-")) {
    const blob = sent(picture);
    const suffix = query.size ? `?${query}` : "";
    return ask(`/api/${what}${suffix}`, { method: "POST", headers: { "content-type": blob.type }, body: blob, signal });
  }
  query.set("id", picture);
  return ask(`/api/${what}?${query}`, { signal });
}

function tell(element, problem) {
  if (problem?.name === "AbortError") return;
  element.hidden = !problem;
  element.textContent = problem?.message ?? "";
}

// ---- pictures that are dropped in: they stay in this window, and are never kept by the server

const urls = new Map();

/** The bytes of a picture that was dropped in. */
function sent(key) {
  const text = sessionStorage.getItem(key);
  if (!text) throw new Error("The picture that was dropped in is not in this window any more; drop it in again.");
  const [head, data] = text.split(",");
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  return new Blob([bytes], { type: head.slice("data:".length, head.indexOf(";")) });
}

function sentUrl(key) {
  if (!urls.has(key)) urls.set(key, URL.createObjectURL(sent(key)));
  return urls.get(key);
}

async function take(file) {
  try {
    const picture = await createImageBitmap(file).catch(() => null);
    if (!picture) {
      // The server says what it is, and what to do.
      await ask("/api/similar?top=1", { method: "POST", headers: { "content-type": "image/jpeg" }, body: file });
      throw new Error(`${file.name}: this browser cannot read the picture.`);
    }
    const scale = Math.min(1, SENT_SIDE / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    const key = `sent-${Date.now()}`;
    for (const old of Object.keys(sessionStorage).filter((name) => name.startsWith("sent-")).sort().slice(0, -8)) {
      sessionStorage.removeItem(old);
    }
    sessionStorage.setItem(key, canvas.toDataURL("image/jpeg", 0.92));
    go({ ...VIEWER, q: "", like: key });
  } catch (problem) {
    tell($("error"), problem);
  }
}

// ---- the grid

let listed = null; // what the grid shows
let listing = null; // ends what is being fetched for it
let ended = true; // all that there is is in the grid
let busy = false;
let asked = 0; // how many were asked for

const percent = (value) => (value >= 0.1 || value === 0 ? `${Math.round(100 * value)} %` : `${(100 * value).toFixed(1)} %`);

function cell(found) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.dataset.id = found.id;
  link.title = found.image;
  const picture = document.createElement("img");
  Object.assign(picture, { loading: "lazy", alt: found.image, src: `/api/pictures/${found.id}/small` });
  link.append(picture);
  if (found.similarity !== undefined) {
    const score = document.createElement("span");
    score.className = "score";
    score.textContent = found.matching !== undefined
      ? `${percent(found.matching)} match` : `${found.similarity.toFixed(2)} similar`;
    link.append(score);
  }
  item.append(link);
  return item;
}

function addresses() {
  const now = state();
  for (const link of $("grid").querySelectorAll("a")) link.href = address({ ...VIEWER, open: link.dataset.id }, now);
}

async function more() {
  if (busy || ended) return;
  busy = true;
  const signal = listing.signal;
  try {
    const { q, like, folder, from, until } = listed;
    const skip = asked;
    const query = { top: PAGE, skip };
    for (const [name, value] of Object.entries({ folder, from, until })) if (value) query[name] = value;
    let answer;
    if (like) answer = await about("similar", like, query, signal);
    else if (q) answer = await ask(`/api/search?${new URLSearchParams({ ...query, q, candidates: PAGE })}`, { signal });
    else answer = await ask(`/api/pictures?${new URLSearchParams(query)}`, { signal });
    if (signal.aborted) return;
    asked += PAGE;
    const known = new Set([...$("grid").querySelectorAll("a")].map((link) => link.dataset.id));
    // While the index grows, what was on an earlier page may come again.
    $("grid").append(...answer.results.filter((found) => !known.has(found.id)).map(cell));
    addresses();
    ended = answer.results.length < PAGE;
    if (skip === 0) {
      const unknown = answer.unknown ? ` ${answer.unknown} of its words are unknown to the model.` : "";
      $("note").textContent = answer.searched !== undefined
        ? `${answer.searched} pictures searched in ${Math.max(1, Math.round(1000 * answer.seconds))} ms.${unknown}`
        : `${answer.pictures} pictures, the newest first.`;
      if (!answer.results.length) $("note").textContent += " None is like that.";
      if (like && !like.startsWith("sent-")) $("title").textContent = `Like ${answer.query}`;
    }
    tell($("error"), null);
  } catch (problem) {
    if (signal.aborted) return; // another list has taken over
    ended = true;
    tell($("error"), problem);
  }
  busy = false;
  if (nearEnd()) more();
}

function nearEnd() {
  return $("more").getBoundingClientRect().top < innerHeight + 600;
}

function list(now, again = false) {
  const wanted = { q: now.q, like: now.like, folder: now.folder, from: now.from, until: now.until };
  if (!again && JSON.stringify(wanted) === JSON.stringify(listed)) {
    addresses();
    return;
  }
  listing?.abort();
  listing = new AbortController();
  [listed, ended, busy, asked] = [wanted, false, false, 0];
  $("grid").replaceChildren();
  $("q").value = now.q ?? "";
  $("folder").value = now.folder ?? "";
  if ($("folder").value !== (now.folder ?? "")) {
    $("folder").append(new Option(now.folder, now.folder, true, true));
  }
  $("from").value = now.from ?? "";
  $("until").value = now.until ?? "";
  $("title").textContent = now.q ? `“${now.q}”` : now.like ? "Pictures like this" : "Pictures";
  document.title = now.q ? `${now.q} - SIMLA` : "SIMLA";
  $("note").textContent = "";
  tell($("error"), null);
  $("sought").hidden = !now.like;
  if (now.like) {
    try {
      $("sought").src = now.like.startsWith("sent-") ? sentUrl(now.like) : `/api/pictures/${now.like}/small`;
    } catch {
      $("sought").hidden = true; // said by the search itself
    }
  }
  more();
}

// ---- one picture

let viewed = null; // the picture
let sought = ""; // the phrase or question whose heat is shown
let looking = null; // ends what is being asked about it
let facts = { heads: 0, asks: false };
let maps = { steady: null, passing: null }; // the heat that stays, and that of a word under the pointer

const COLORS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

function color(value) {
  const at = value * (COLORS.length - 1);
  const low = Math.min(Math.floor(at), COLORS.length - 2);
  return COLORS[low].map((from, i) => from + (at - low) * (COLORS[low + 1][i] - from));
}

/** Draws what `maps` says: heat over the picture, and the box. */
function draw() {
  const shown = maps.passing ?? maps.steady;
  const context = $("heat").getContext("2d");
  context.clearRect(0, 0, HEAT, HEAT);
  $("large").classList.toggle("pale", Boolean(shown));
  $("heat").dataset.shown = shown?.name ?? "";
  const box = shown?.box;
  $("box").hidden = !box;
  if (box) {
    const [x, y, width, height] = box;
    const [all, down] = [shown.width, shown.height];
    Object.assign($("box").style, { left: `${(100 * x) / all}%`, top: `${(100 * y) / down}%`,
      width: `${(100 * width) / all}%`, height: `${(100 * height) / down}%` });
  }
  if (!shown) return;
  const { grid, map } = shown;
  const peak = Math.max(shown.peak ?? 0, ...map) || 1;
  const pixels = new ImageData(grid, grid);
  map.forEach((value, i) => {
    const heat = Math.max(0, value) / peak;
    const [r, g, b] = color(heat);
    pixels.data.set([r, g, b, 255 * 0.78 * Math.sqrt(heat)], 4 * i);
  });
  const small = new OffscreenCanvas(grid, grid);
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, HEAT, HEAT);
}

/** A button whose heat shows while it is pointed at or has the focus. */
function pointed(button, heat) {
  const enter = () => { maps.passing = heat; draw(); };
  const leave = () => { maps.passing = null; draw(); };
  button.addEventListener("pointerenter", enter);
  button.addEventListener("pointerleave", leave);
  button.addEventListener("focus", () => { if (button.matches(":focus-visible")) enter(); });
  button.addEventListener("blur", leave);
  return button;
}

function button(text) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  return button;
}

async function look(now) {
  const picture = now.open;
  if (!picture) {
    viewed = null;
    looking?.abort();
    if (viewer.open) viewer.close();
    return;
  }
  const fresh = viewed !== picture;
  if (fresh) {
    viewed = picture;
    sought = "";
    looking?.abort();
    looking = new AbortController();
    maps = { steady: null, passing: null };
    for (const id of ["keywords", "words", "answers"]) $(id).replaceChildren();
    for (const id of ["about", "seen", "name"]) $(id).textContent = "";
    tell($("problem"), null);
    try {
      $("large").src = picture.startsWith("sent-") ? sentUrl(picture) : `/api/pictures/${picture}/file`;
    } catch (problem) {
      $("large").removeAttribute("src");
      tell($("problem"), problem);
    }
    $("large").alt = "";
    draw();
  }
  if (!viewer.open) viewer.showModal();
  $("phrase").value = now.phrase ?? "";
  $("question").value = now.ask ?? "";
  $("head").value = now.head ?? "";
  $("alike").href = address({ like: picture }, { folder: now.folder, from: now.from, until: now.until });
  const links = neighbours();
  $("previous").disabled = !links.previous;
  $("next").disabled = !links.next;
  const signal = looking.signal;
  if (fresh) {
    describe(picture, signal);
    keywords(picture, signal);
  }
  await heat(picture, now, signal);
}

function neighbours() {
  const all = [...$("grid").querySelectorAll("a")];
  const at = all.findIndex((link) => link.dataset.id === viewed);
  if (at < 0) return {};
  if (at > all.length - 4) more();
  return { previous: all[at - 1], next: all[at + 1] };
}

async function describe(picture, signal) {
  if (picture.startsWith("sent-")) {
    $("name").textContent = "The picture that was dropped in";
    $("large").alt = "The picture that was dropped in";
    return;
  }
  try {
    const told = await ask(`/api/pictures/${picture}`, { signal });
    $("name").textContent = told.image;
    $("large").alt = told.image;
    $("about").textContent = `${told.width} × ${told.height} pixels, file of ${told.date ?? "an unknown day"}`;
  } catch (problem) {
    tell($("problem"), problem);
  }
}

async function keywords(picture, signal) {
  try {
    const told = await about("keywords", picture, { top: 12 }, signal);
    $("keywords").replaceChildren(...told.keywords.map((keyword) => {
      const item = document.createElement("li");
      const word = pointed(button(`${keyword.word} `), { name: keyword.word, grid: told.grid, map: keyword.map });
      const score = document.createElement("small");
      score.textContent = percent(keyword.score);
      word.append(score);
      word.title = "Shows where it is; a click finds it by matching";
      word.addEventListener("click", () => go({ phrase: keyword.word, ask: "", head: "" }));
      item.append(word);
      return item;
    }));
  } catch (problem) {
    tell($("problem"), problem);
  }
}

/** The words of a phrase or a question, each of which shows its own heat. */
function showWords(told) {
  const peak = Math.max(0, ...told.words.flatMap((word) => word.map));
  $("words").replaceChildren(...told.words.map((word) => pointed(button(word.word), {
    name: word.word, grid: told.grid, map: word.map, box: word.box, width: told.width, height: told.height, peak,
  })));
}

async function heat(picture, now, signal) {
  const key = JSON.stringify([now.phrase, now.ask, now.head]);
  if (key === sought) return;
  sought = key;
  maps = { steady: null, passing: null };
  $("words").replaceChildren();
  $("answers").replaceChildren();
  $("seen").textContent = "";
  tell($("problem"), null);
  draw();
  const current = () => sought === key && !signal.aborted;
  try {
    if (now.phrase) {
      const told = await about("ground", picture, { phrase: now.phrase }, signal);
      if (!current()) return;
      maps.steady = { ...told, name: told.phrase };
      showWords(told);
      const unknown = told.unknown ? ` ${told.unknown} of its words are unknown to the model.` : "";
      const [left, top, width, height] = (told.box ?? []).map(Math.round);
      const where = told.box ? ` Box: left ${left}, top ${top}, width ${width}, height ${height}.` : " Nothing in the picture speaks for it.";
      $("seen").textContent = `“${told.phrase}” matches with probability ${told.probability.toFixed(2)}.${where}${unknown}`;
    } else if (now.ask) {
      const told = await about("ask", picture, { question: now.ask }, signal);
      if (!current()) return;
      answers(told);
    } else if (now.head !== undefined) {
      const told = await about("attention", picture, {}, signal);
      if (!current()) return;
      const head = Number(now.head);
      const map = now.head === "mean" ? told.mean : told.heads[head - 1];
      if (!map) throw new Error(`There is no head ${now.head}; expected 1 to ${told.heads.length}.`);
      maps.steady = { name: `head ${now.head}`, grid: told.grid, map };
      $("seen").textContent = now.head === "mean" ? "Attention of the encoder, mean of its heads." : `Attention of head ${head}.`;
    }
    draw();
  } catch (problem) {
    if (current()) tell($("problem"), problem);
  }
}

function answers(told) {
  const heat = (map) => ({ name: told.question, grid: told.grid, map, width: told.width, height: told.height });
  $("answers").replaceChildren(...told.answers.map((answer) => {
    const item = document.createElement("li");
    item.textContent = `${answer.answer} (${percent(answer.probability)})`;
    return item;
  }));
  if (told.map) {
    maps.steady = heat(told.map);
    showWords(told);
  }
  const best = told.answers[0];
  $("seen").textContent = best ? `“${told.question}” ${best.answer}, with probability ${best.probability.toFixed(2)}. The heat shows where the words looked.` : "No answer.";
}

// ---- what there is

let polling = null;

async function library() {
  clearTimeout(polling);
  let again = 20 * POLL;
  try {
    const told = await ask("/api/library");
    facts = { heads: told.model.heads, asks: told.asks };
    $("ask").hidden = !told.asks;
    $("to-runs").hidden = !told.runs;
    const chosen = state().folder ?? "";
    const folders = told.folders.map(({ folder, pictures }) => new Option(`${folder} (${pictures})`, folder));
    if (document.activeElement !== $("folder")) {
      $("folder").replaceChildren(new Option(`all (${told.pictures})`, ""), ...folders);
      if (chosen && !told.folders.some(({ folder }) => folder === chosen)) $("folder").append(new Option(chosen, chosen));
      $("folder").value = chosen;
    }
    if ($("head").options.length !== facts.heads + 2) {
      const heads = Array.from({ length: facts.heads }, (_, i) => new Option(`head ${i + 1}`, i + 1));
      $("head").replaceChildren(new Option("not shown", ""), new Option("mean of the heads", "mean"), ...heads);
      $("head").value = state().head ?? "";
    }
    indexing(told.indexing);
    if (told.indexing.running) again = POLL;
  } catch (problem) {
    tell($("error"), problem);
  }
  polling = setTimeout(library, again);
}

let before = { running: false, done: 0 };

function indexing(now) {
  const problem = now.error ?? (now.unusable ? `${now.unusable} cannot be used, the first: ${now.first_unusable[0]}` : "");
  $("indexing").hidden = !now.running && !problem;
  $("progress").hidden = !now.running;
  if (now.all) Object.assign($("progress"), { max: now.all, value: now.done });
  const going = now.running ? `Indexing new pictures: ${now.done} of ${now.all}. What is there can be searched. ` : "";
  $("progress-text").textContent = going + problem;
  const grown = now.done !== before.done || (before.running && !now.running);
  before = now;
  // What is new is shown to whoever looks at the beginning of the list.
  if (grown && scrollY < 200 && !viewer.open && $("grid").children.length < PAGE) list(state(), true);
}

// ---- what people do

function show() {
  const now = state();
  list(now);
  look(now);
}

const filters = () => ({ folder: $("folder").value, from: $("from").value, until: $("until").value });

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  go({ ...VIEWER, ...filters(), q: $("q").value.trim(), like: "" });
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["folder", "from", "until"]) $(id).addEventListener("change", () => go(filters()));
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  go({}, {});
});
$("refresh").addEventListener("click", async () => {
  try {
    await ask("/api/index", { method: "POST" });
    library();
  } catch (problem) {
    tell($("error"), problem);
  }
});
$("picture").addEventListener("change", (event) => {
  if (event.target.files[0]) take(event.target.files[0]);
  event.target.value = "";
});

$("grid").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go({ ...VIEWER, open: link.dataset.id });
});
$("grid").addEventListener("keydown", (event) => {
  const columns = getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const all = [...$("grid").querySelectorAll("a")];
  const to = all[all.indexOf(document.activeElement) + by];
  if (by && to) {
    event.preventDefault();
    to.focus();
  }
});
$("sought").addEventListener("click", () => go({ ...VIEWER, open: state().like }));
$("large").addEventListener("load", ({ target }) => {
  // A small picture is shown larger: what is in it matters.
  const scale = Math.min(480, innerHeight / 2) / Math.max(target.naturalWidth, target.naturalHeight);
  target.style.width = scale > 1 ? `${scale * target.naturalWidth}px` : "";
});
$("large").addEventListener("error", () => {
  // The server's words say more, where there are some.
  if (viewed && $("problem").hidden) tell($("problem"), new Error("The picture cannot be shown."));
});

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  go({ phrase: $("phrase").value.trim(), ask: "", head: "" });
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  go({ ask: $("question").value.trim(), phrase: "", head: "" });
});
$("head").addEventListener("change", () => go({ head: $("head").value, phrase: "", ask: "" }));
$("alike").addEventListener("click", (event) => {
  event.preventDefault();
  const { folder, from, until } = state();
  go({ like: viewed }, { folder, from, until });
});

function step(way) {
  const to = neighbours()[way];
  if (to) go({ open: to.dataset.id });
}
$("previous").addEventListener("click", () => step("previous"));
$("next").addEventListener("click", () => step("next"));
$("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("close", () => {
  const was = viewed;
  if (state().open) go(VIEWER);
  $("grid").querySelector(`a[data-id="${CSS.escape(was ?? "")}"]`)?.focus();
});
viewer.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select")) return;
  if (event.key === "ArrowLeft") step("previous");
  if (event.key === "ArrowRight") step("next");
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !viewer.open && !event.target.matches("input, select")) {
    event.preventDefault();
    $("q").focus();
  }
});

const files = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!files(event)) return;
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
addEventListener("drop", (event) => {
  if (!files(event)) return;
  event.preventDefault();
  $("drop").hidden = true;
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});

addEventListener("popstate", show);
new IntersectionObserver((seen) => { if (seen.some((entry) => entry.isIntersecting)) more(); }, { rootMargin: "600px" }).observe($("more"));
addEventListener("scroll", () => { if (nearEnd()) more(); }, { passive: true });

show();
library();
