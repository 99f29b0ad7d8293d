"use strict";
// Sorts tables, draws charts, compares runs and shows samples. Foreign texts only ever become text nodes.

const loaded = new Map();
const OUTCOMES = ["all", "right", "wrong", "between", "near miss", "unparsed", "not scored", "no answer", "disagree"];
const PAGE = 50;
const QUESTION = 0, TARGET = 1, TAGS = 2;
const ANSWER = 0, READ = 1, SCORES = 2, OUTCOME = 3, FLAGS = 4, ERROR = 5, ASKED = 6, IMAGE = 7;

function evalkitPut(name, content) {
  loaded.set(name, content);
  if (name === "board") start();
}

function load(name) {
  if (loaded.has(name)) return Promise.resolve(loaded.get(name));
  return new Promise((done, fail) => {
    const missing = () => fail(new Error(`data/${name}.js is missing or broken: export the board again`));
    const script = element("script", { src: `data/${name}.js` });
    script.onload = () => (loaded.has(name) ? done(loaded.get(name)) : missing());
    script.onerror = missing;
    document.head.append(script);
  });
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

const at = (id) => document.getElementById(id);
const says = (text, bad = false) => element("p", { class: bad ? "says bad" : "says" }, text);
const note = (text) => element("p", { class: "note" }, text);

function address(...parts) {
  return "#" + parts.map(encodeURIComponent).join("/");
}

function plain(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// Runs by key: their name, their target's number and name, and how many of their samples are here.
const runs = new Map();

function start() {
  // An id that the address names would be scrolled to.
  document.querySelectorAll("main > section").forEach((one) => { one.dataset.page = one.id; one.id = `page-${one.id}`; });
  loaded.get("board").targets.forEach((target, place) => {
    for (const [key, name, samples] of target.runs) runs.set(key, { key, name, place, target: target.name, samples });
  });
  document.querySelectorAll(".scroll table").forEach(sortable);
  document.querySelectorAll(".models table").forEach(onlyFilled);
  document.querySelectorAll("[data-shows]").forEach((box) => {
    box.addEventListener("change", () => shows(box.dataset.shows, box.checked));
  });
  for (const [page, select] of [["tasks", "task"], ["training", "shown"]]) {
    fill(at(select), articles(page).map((one) => [one.dataset.name, one.dataset.name]));
    at(select)?.addEventListener("change", () => go(page, at(select).value));
  }
  at("base").addEventListener("change", () => go("compare", at("base").value, ""));
  at("new").addEventListener("change", () => go("compare", at("base").value, at("new").value));
  at("run").addEventListener("change", () => go("samples", at("run").value));
  for (const id of ["other", "outcome"]) at(id).addEventListener("change", () => go("samples", ...chosen()));
  at("words").addEventListener("input", () => go("samples", ...chosen()));
  fill(at("outcome"), OUTCOMES.map((word) => [word, word]));
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: "previous", ArrowRight: "next" }[event.key];
    if (step && at("page-samples").hidden === false && !event.target.matches("input, [tabindex]")) {
      event.preventDefault();
      at(step)?.click();
    }
  });
  window.addEventListener("hashchange", route);
  window.addEventListener("resize", draw);
  route();
}

const chosen = () => [at("run").value, at("other").value, at("outcome").value];

function go(...parts) {
  location.hash = address(...parts);
  route();
}

function fill(select, options, groups = null) {
  if (!select) return;
  const before = select.value;
  select.replaceChildren();
  const parents = new Map();
  options.forEach(([value, text], place) => {
    let parent = select;
    const group = groups?.[place];
    if (group) {
      if (!parents.has(group)) parents.set(group, element("optgroup", { label: group }));
      parent = parents.get(group);
      select.append(parent);
    }
    parent.append(element("option", { value }, text));
  });
  if (options.some(([value]) => value === before)) select.value = before;
}

// Shows rows of a kind in every table; a row that is published and of earlier weights needs both.
function shows(kind, on) {
  for (const box of document.querySelectorAll(`[data-shows="${kind}"]`)) box.checked = on;
  const off = [...document.querySelectorAll("[data-shows]")].filter((box) => !box.checked).map((box) => box.dataset.shows);
  for (const row of document.querySelectorAll("tr.published, tr.earlier")) {
    row.classList.toggle("away", off.some((name) => row.classList.contains(name)));
  }
  document.querySelectorAll(".models table").forEach(onlyFilled);
}

// Leaves out columns in which no row that is shown has a value.
function onlyFilled(table) {
  const rows = [...table.tBodies[0].rows].filter((row) => !row.classList.contains("away"));
  for (let place = 1; place < table.tHead.rows[0].cells.length; place++) {
    const empty = rows.every((row) => !row.cells[place].textContent);
    for (const row of table.rows) row.cells[place].classList.toggle("away", empty);
  }
}

function sortable(table) {
  table.querySelectorAll("thead th").forEach((head, place) => {
    const button = element("button", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, head, place));
  });
}

function sort(table, head, place) {
  const body = table.tBodies[0], rows = [...body.rows];
  const value = (row) => {
    const cell = row.cells[place];
    if (cell?.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell?.textContent ?? "";
    return text === "" || text === "–" ? null : text;
  };
  const numbers = rows.some((row) => typeof value(row) === "number");
  const first = numbers && !head.classList.contains("low") ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  table.querySelectorAll("[aria-sort]").forEach((one) => one.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
  });
  body.append(...rows);
}

function route() {
  const [page, ...rest] = location.hash.slice(1).split("/").map(plain);
  const sections = [...document.querySelectorAll("main > section")];
  const current = sections.some((one) => one.dataset.page === page) ? page : "overview";
  for (const one of sections) one.hidden = one.dataset.page !== current;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${current}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (current === "tasks") choose("tasks", "task", rest[0]);
  if (current === "training") choose("training", "shown", rest[0]);
  if (current === "compare") compare(rest[0], rest[1]);
  if (current === "samples") samples(...rest);
  draw();
}

const articles = (page) => [...at(`page-${page}`).querySelectorAll("article")];

// Shows one of a page's articles.
function choose(page, select, name) {
  const all = articles(page);
  if (!all.length) return;
  const wanted = name ?? all[0].dataset.name;
  at(select).value = wanted;
  for (const one of all) one.hidden = one.dataset.name !== wanted;
  at(`page-${page}`).querySelector(".gone")?.remove();
  if (all.every((one) => one.hidden)) all[0].before(element("div", { class: "gone" }, says(`${wanted} is not in this export.`, true)));
}

function unknown(key) {
  return key && !runs.has(key) ? says(`Run ${key} is not in this export.`, true) : null;
}

async function compare(base, other) {
  const place = at("comparison"), { targets, usual, over } = loaded.get("board");
  const several = [...runs.values()].filter((run) => targets[run.place].runs.length > 1);
  if (over.length) several.sort((a, b) => (b.place === targets.length - 1) - (a.place === targets.length - 1));
  fill(at("base"), several.map((run) => [run.key, run.name]), several.map((run) => run.target));
  const [usualBase, usualNew] = over.length ? over : usual;
  const first = runs.get(base || usualBase);
  const gone = unknown(base) ?? unknown(other);
  if (gone || !several.includes(first)) return place.replaceChildren(gone ?? says("A comparison takes two scored runs of one task and split."));
  try {
    const { header, texts, pairs } = await load(`pairs-${first.place}`);
    const turned = (run) => pairs[`${first.key} ${run.key}`] === undefined;
    const pair = (run) => (turned(run) ? pairs[`${run.key} ${first.key}`] : pairs[`${first.key} ${run.key}`]);
    const others = several.filter((run) => run.place === first.place && pair(run));
    fill(at("new"), others.map((run) => [run.key, run.name]));
    const newest = others.findLast((run) => pair(run).rows.length) ?? others.at(-1);
    const second = other ? runs.get(other) : base ? newest : runs.get(usualNew);
    [at("base").value, at("new").value] = [first.key, second.key];
    if (!others.includes(second)) return place.replaceChildren(says(second ? `${second.name} is this run, or of other tasks or another split than ${first.name}.` : `${first.name} has no tasks in common with another model.`, true));
    const [from, to] = turned(second) ? [second, first] : [first, second];
    place.replaceChildren(...comparison(pair(second), header, texts, from, to, turned(second)));
  } catch (error) {
    place.replaceChildren(says(error.message, true));
  }
  draw();
}

function comparison(pair, header, texts, base, other, turned) {
  const [verdict, ...counts] = pair.says.map((n) => texts[n]);
  const rows = pair.rows.map(([cells, kind, unit, notes]) => ({
    cells: cells.map((n) => texts[n]), verdict: texts[kind], unit: texts[unit], notes: notes.map((n) => texts[n]),
  }));
  const bad = !rows.length || rows.some((row) => row.verdict === "regressed");
  const order = turned ? " The runs were turned: the earlier one is the base." : "";
  const made = [says(`${verdict} Base: ${base.name}. New: ${other.name}.${order}`, bad)];
  if (!rows.length) return made;
  const head = element("tr", {}, ...header.map((name, n) => element("th", { scope: "col", class: n === 0 ? "name" : n === header.length - 1 ? "left" : "" }, name)));
  const body = element("tbody", {}, ...rows.map(resultRow));
  const whole = element("table", {}, element("caption", {}, "verdicts"), element("thead", {}, head), body);
  const units = [...new Set(rows.map((row) => row.unit))];
  made.push(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "verdicts" }, whole));
  made.push(...counts.map(note), ...pair.notes.map((n) => note(texts[n])));
  if (base.samples && other.samples) {
    const link = element("a", { href: address("samples", other.key, base.key, "disagree") }, "Samples on which the two differ");
    made.push(element("p", {}, link));
  }
  made.push(element("h2", {}, "Paired differences with 95% intervals"));
  for (const unit of units) made.push(...forest(rows.filter((row) => row.unit === unit), unit));
  return made;
}

function resultRow(row) {
  const kind = { improved: "good", regressed: "bad" }[row.verdict] ?? "";
  const [name, ...middle] = row.cells;
  const said = middle.pop();
  const last = element("td", { class: "left" }, element("span", { class: kind }, said), ...row.notes.map((text) => element("small", {}, text)));
  return element("tr", {}, element("th", { scope: "row", class: "name" }, name), ...middle.map((text) => element("td", {}, text)), last);
}

// The points are the numbers that the table shows.
function forest(rows, unit) {
  const points = [];
  for (const { cells, verdict } of rows) {
    const [low, high] = cells[4].replace(/[[\]]/g, "").split(", ").map(Number);
    const value = Number(cells[3]);
    if (cells[3] === "-") continue;
    const kind = verdict === "no evidence" ? "no" : verdict;
    const reach = Number.isFinite(low) && Number.isFinite(high) ? [low, high] : [value, value];
    points.push({ label: cells[0], kind, value, low: reach[0], high: reach[1], text: `${cells[0]}: ${cells[3]} ${cells[4]}, ${verdict}` });
  }
  if (!points.length) return [];
  const made = element("div", { class: "chart" });
  made.dataset.chart = JSON.stringify({ kind: "intervals", zero: true, unit: `new − base, ${unit}`, rows: points });
  return [made];
}

async function samples(key, otherKey = "", outcome = "all", id = null) {
  const place = at("sample"), list = at("list");
  const here = [...runs.values()].filter((run) => run.samples).reverse();
  fill(at("run"), here.map((run) => [run.key, run.name]), here.map((run) => run.target));
  const run = key ? runs.get(key) : runs.get(loaded.get("board").usual?.[1]) ?? here[0];
  list.replaceChildren();
  const gone = unknown(key) ?? unknown(otherKey);
  if (gone || !run?.samples) return place.replaceChildren(gone ?? says("No sample of this run is in this export."));
  const beside = here.filter((one) => one.place === run.place && one !== run);
  fill(at("other"), [["", "none"], ...beside.map((one) => [one.key, one.name])]);
  const other = beside.find((one) => one.key === otherKey) ?? null;
  const wanted = OUTCOMES.includes(outcome) ? outcome : "all";
  [at("run").value, at("other").value, at("outcome").value] = [run.key, other?.key ?? "", wanted];
  try {
    const asked = await load(`samples-${run.place}`);
    const mine = await load(`answers-${run.key}`);
    const theirs = other ? await load(`answers-${other.key}`) : null;
    const rows = asked
      .map(([name, ...shared], n) => ({ name, row: mine.rows[n], theirs: theirs?.rows[n] ?? null, shared: mine.rows[n]?.[ASKED] ?? shared }))
      .filter((one) => one.row && fits(one, wanted) && holds(one, at("words").value.toLowerCase()));
    show(run, other, wanted, mine, rows, id);
  } catch (error) {
    place.replaceChildren(says(error.message, true));
  }
}

function fits({ row, theirs }, outcome) {
  if (outcome === "all") return true;
  if (outcome === "near miss") return row[FLAGS].includes("near_miss");
  if (outcome === "unparsed") return row[FLAGS].includes("unparsed");
  if (outcome === "disagree") return theirs !== null && JSON.stringify(theirs[SCORES]) !== JSON.stringify(row[SCORES]);
  return row[OUTCOME] === outcome;
}

function holds({ name, row, shared }, words) {
  return !words || [name, shared[QUESTION], shared[TARGET], row[ANSWER]].some((text) => text.toLowerCase().includes(words));
}

function show(run, other, outcome, mine, rows, id) {
  const place = at("sample");
  const part = mine.rows.filter(Boolean).length < mine.of ? `${run.samples.toLocaleString("en")} of ${mine.of.toLocaleString("en")} samples are in this export, those on which runs disagree first. ` : "";
  const where = id === null ? 0 : rows.findIndex((one) => one.name === id);
  if (!rows.length) return place.replaceChildren(note(part), says("No sample fits."));
  if (where < 0) return place.replaceChildren(note(part), says(`Sample ${id} is not in this export, or does not fit.`, true));
  const open = (n) => address("samples", run.key, other?.key ?? "", outcome, rows[n].name);
  const button = (name, n) => {
    const made = element("button", { type: "button", id: name.toLowerCase() }, name);
    made.disabled = n < 0 || n >= rows.length;
    made.addEventListener("click", () => { location.hash = open(n); });
    return made;
  };
  const line = element("p", { class: "pick" }, button("Previous", where - 1), button("Next", where + 1),
    `sample ${(where + 1).toLocaleString("en")} of ${rows.length.toLocaleString("en")}`);
  place.replaceChildren(note(part + "Arrow keys move."), line, sample(rows[where], other, mine.score));
  const start = Math.floor(where / PAGE) * PAGE;
  const titles = ["Sample", mine.score, "Question", "Target", "Answer"];
  const body = rows.slice(start, start + PAGE).map((one, n) => element("tr", {},
    element("th", { scope: "row", class: "name" }, element("a", { href: open(start + n) }, cut(one.name, 60))),
    ...[one.row[SCORES][mine.score] ?? "", one.shared[QUESTION], one.shared[TARGET], one.row[ERROR] || one.row[ANSWER]].map((text, column) =>
      element("td", column ? { class: "left" } : {}, cut(text, 110)))));
  const head = element("tr", {}, ...titles.map((name, n) => element("th", { scope: "col", class: ["name", "", "left", "left", "left"][n] }, name)));
  const table = element("table", {}, element("caption", {}, "samples"), element("thead", {}, head), element("tbody", {}, ...body));
  at("list").replaceChildren(note(`samples ${start + 1} to ${start + body.length}`),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "samples" }, table));
}

const cut = (text, width) => { const line = text.replace(/\s+/g, " "); return line.length > width ? line.slice(0, width - 1) + "…" : line; };

function quote(label, text) {
  return element("figure", {}, element("figcaption", {}, label), element("pre", {}, text || "(empty)"));
}

function sample({ name, row, shared, theirs }, other, score) {
  const words = element("div", {}, quote("Question", shared[QUESTION]));
  words.append(row[ERROR] ? says(`No answer: ${row[ERROR]}`, true) : quote("Answer", row[ANSWER]), quote("Target", shared[TARGET]));
  if (row[READ]) words.append(quote("Read as", row[READ]));
  if (theirs) words.append(quote(`Answer of ${other.name}`, theirs[ERROR] || theirs[ANSWER]));
  const facts = [`sample ${name}`, ...Object.entries(row[SCORES]).map(([key, value]) => `${key} ${value}`)];
  if (theirs) facts.push(...Object.entries(theirs[SCORES]).map(([key, value]) => `its ${key} ${value}`));
  facts.push(row[OUTCOME], ...row[FLAGS], ...Object.entries(shared[TAGS]).map(([key, value]) => `${key}: ${value}`));
  words.append(note(facts.join(" · ")));
  if (!row[IMAGE]) return words;
  return element("div", { class: "two" }, element("div", {}, element("img", { src: row[IMAGE], alt: `images of sample ${name}` })), words);
}
