// Keeps the pages of runs new: the list of all, and a report or a comparison.
"use strict";

const EVERY = 3000; // milliseconds

const list = document.getElementById("all");

function cell(row, text) {
  const cell = document.createElement("td");
  cell.textContent = text;
  row.append(cell);
  return cell;
}

function time(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "";
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function row(run) {
  const row = document.createElement("tr");
  const tick = document.createElement("input");
  Object.assign(tick, { type: "checkbox", name: "run", value: run.run });
  tick.setAttribute("aria-label", `Compare ${run.run}`);
  cell(row, "").append(tick);
  const link = document.createElement("a");
  link.href = `/runs/view?${new URLSearchParams({ run: run.run })}`;
  link.textContent = run.run;
  cell(row, "").append(link);
  for (let i = 0; i < 5; i++) cell(row, "");
  return row;
}

function show(runs) {
  const rows = new Map([...list.rows].map((row) => [row.querySelector("input").value, row]));
  list.replaceChildren(...runs.map((run) => {
    // A row that is there keeps its tick and the focus.
    const shown = rows.get(run.run) ?? row(run);
    const step = run.steps > 0 ? `${run.step} of ${run.steps}` : run.step > 0 ? `${run.step}` : "";
    const when = run.updated > 0 ? new Date(1000 * run.updated).toLocaleString() : "";
    const texts = [run.message ? `${run.state}: ${run.message}` : run.state, step,
      run.state === "running" ? time(run.seconds_left) : "", run.pairs_per_s?.toFixed(1) ?? "", when];
    texts.forEach((text, i) => { shown.cells[i + 2].textContent = text; });
    return shown;
  }));
  document.getElementById("none").hidden = runs.length > 0;
}

async function renew() {
  const answer = await fetch(list ? "/api/runs" : location.href);
  if (!answer.ok) throw new Error(`the server says ${answer.status}`);
  if (list) {
    const focused = document.activeElement;
    show((await answer.json()).runs);
    focused?.focus({ preventScroll: true });
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const open = [...document.querySelectorAll("details")].map((details) => details.open);
  const main = page.querySelector("main");
  main.querySelectorAll("details").forEach((details, i) => { details.open = open[i] ?? false; });
  // Selected text would be lost.
  if (document.getSelection().isCollapsed) document.querySelector("main").replaceWith(main);
}

async function forever() {
  const error = document.getElementById("error");
  try {
    if (!document.hidden) await renew();
    if (error) error.hidden = true;
  } catch (problem) {
    if (error) Object.assign(error, { hidden: false, textContent: `This is not new any more: ${problem.message}` });
  }
  setTimeout(forever, EVERY);
}

if (list) forever(); else setTimeout(forever, EVERY);
