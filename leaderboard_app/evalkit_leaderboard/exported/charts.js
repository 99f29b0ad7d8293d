// Charts as SVG; the table beside each has the same values.

function draw() {
  for (const place of document.querySelectorAll("section:not([hidden]) .chart")) {
    const content = JSON.parse(place.dataset.chart);
    const width = Math.max(300, place.clientWidth);
    if (place.clientWidth) place.replaceChildren({ sizes, intervals, curves, points }[content.kind](content, width));
  }
}

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const canvas = (width, height, label) => drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${label}; the table has the same values` });

// Round numbers over a range.
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= raw);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.max(1, Math.floor(high / step) - first + 1) }, (_, n) => Number(((first + n) * step).toPrecision(12)));
}

function intervals({ rows, unit, zero }, width) {
  const left = Math.min(260, width * 0.38), height = rows.length * 26 + 50, right = width - 15;
  const ends = rows.flatMap((row) => [row.low, row.high, row.value]).concat(zero ? [0] : []);
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const spare = (most - least) * 0.05 || Math.abs(most) * 0.05 || 1;
  const x = (value) => left + ((value - least + spare) / (most - least + 2 * spare)) * (right - left);
  const made = canvas(width, height, `intervals, ${unit}`);
  for (const tick of ticks(least - spare, most + spare, width > 500 ? 7 : 4)) {
    made.append(drawn("line", { class: zero && tick === 0 ? "zero" : "grid", x1: x(tick), x2: x(tick), y1: 5, y2: height - 40 }));
    made.append(drawn("text", { class: "tick", x: x(tick), y: height - 24, "text-anchor": "middle" }, String(tick)));
  }
  made.append(drawn("text", { class: "tick", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, unit));
  rows.forEach((row, n) => {
    const y = 18 + 26 * n, kind = row.kind === "published" ? "publ" : row.kind;
    const group = drawn("g", { class: kind }, drawn("title", {}, row.text));
    group.append(drawn("line", { x1: x(row.low), x2: x(row.high), y1: y, y2: y, "stroke-width": 2.5 }), mark(kind, x(row.value), y));
    made.append(drawn("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, cut(row.label, Math.floor(left / 6.8))), group);
  });
  return made;
}

// Told apart by form as well as by colour.
function mark(kind, x, y) {
  const corners = { base: [[-5, -5], [5, -5], [5, 5], [-5, 5]], publ: [[0, -6], [6, 0], [0, 6], [-6, 0]], improved: [[0, -6], [6, 5], [-6, 5]], regressed: [[0, 6], [6, -5], [-6, -5]] }[kind];
  if (!corners) return drawn("circle", { cx: x, cy: y, r: 5 });
  return drawn("polygon", { points: corners.map(([dx, dy]) => `${x + dx},${y + dy}`).join(" ") });
}

function sizes({ points, front, y: title }, width) {
  const height = 380, left = 45, right = width - 20, logs = points.map((point) => Math.log10(point.x));
  const scale = (values, from, to) => {
    const [least, most] = [Math.min(...values), Math.max(...values)], spare = (most - least) * 0.08 || 1;
    return Object.assign((value) => from + ((value - least + spare) / (most - least + 2 * spare)) * (to - from), { least: least - spare, most: most + spare });
  };
  const x = scale(logs, left, right), y = scale(points.map((point) => point.y), height - 45, 10);
  const made = canvas(width, height, `${title} against parameters`);
  for (const tick of ticks(y.least, y.most, 6)) {
    made.append(drawn("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }));
    made.append(drawn("text", { class: "tick", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (let power = 3; power < 13; power++) {
    for (const [factor, text] of [[1, "1"], [3, "3"]]) {
      const log = power + Math.log10(factor);
      if (log < x.least || log > x.most) continue;
      const unit = { 3: "K", 6: "M", 9: "B" }[power - (power % 3)] ?? "";
      made.append(drawn("text", { class: "tick", x: x(log), y: height - 24, "text-anchor": "middle" }, `${text}${"0".repeat(power % 3)}${unit}`));
    }
  }
  made.append(drawn("text", { class: "tick", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, "parameters"));
  const path = front.map(([px, py], n) => (n ? `H${x(Math.log10(px))}V${y(py)}` : `M${x(Math.log10(px))},${y(py)}`)).join("");
  made.append(drawn("path", { class: "front", d: path }));
  const best = new Set(front.map(([px, py]) => `${px} ${py}`));
  for (const point of points) {
    const [px, py] = [x(Math.log10(point.x)), y(point.y)], kind = point.published ? "publ" : "measured";
    made.append(drawn("g", { class: kind }, drawn("title", {}, point.text), mark(kind, px, py)));
    if (best.has(`${point.x} ${point.y}`) || !point.published) {
      const far = px > (left + right) / 2;
      made.append(drawn("text", { x: px + (far ? -9 : 9), y: py - 8, "text-anchor": far ? "end" : "start" }, cut(point.label, width > 500 ? 40 : 18)));
    }
  }
  return made;
}

// A plane over all xs and ys, with ticks and titles; `names` are categories in place of numbers on the x axis.
function plane(width, height, top, { xs, ys, x: xTitle, y: yTitle, names = null }) {
  const left = 64, right = width - 15, bottom = height - 46;
  const over = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const scale = (values, from, to, part) => {
    const [least, most] = over(values), spare = (most - least) * part || Math.abs(most) * part || 1;
    return Object.assign((value) => from + ((value - least + spare) / (most - least + 2 * spare)) * (to - from), { least: least - spare, most: most + spare });
  };
  const x = names ? (n) => left + ((n + 0.5) / names.length) * (right - left) : scale(xs, left, right, 0.03);
  const y = scale(ys, bottom, top, 0.06);
  const made = canvas(width, height, `${yTitle} by ${xTitle}`);
  for (const tick of ticks(y.least, y.most, 6)) {
    made.append(drawn("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }));
    made.append(drawn("text", { class: "tick", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  const marks = names ? names.map((name, n) => [x(n), cut(name, Math.floor((right - left) / names.length / 6.8))]) : ticks(x.least, x.most, width > 500 ? 8 : 4).map((tick) => [x(tick), String(tick)]);
  for (const [place, text] of marks) made.append(drawn("text", { class: "tick", x: place, y: bottom + 18, "text-anchor": "middle" }, text));
  made.append(drawn("text", { class: "tick", x: (left + right) / 2, y: height - 8, "text-anchor": "middle" }, xTitle));
  made.append(drawn("text", { class: "tick", x: 14, y: (top + bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(top + bottom) / 2})` }, cut(yTitle, 40)));
  return { made, x, y, left };
}

// Lines of several series, told apart by dashes as well as by colour, with a band where there are intervals.
function curves({ series, x: xTitle, y: yTitle }, width) {
  const DASHES = ["", "7 4", "2 3", "9 3 2 3", "12 4", "4 4", "1 5"];
  const all = series.flatMap(([, own]) => own), top = 18 + 20 * series.length;
  const { made, x, y, left } = plane(width, 320 + top, top, { xs: all.map((point) => point[0]), ys: all.flatMap((point) => point.slice(1)), x: xTitle, y: yTitle });
  series.forEach(([name, own], n) => {
    const group = drawn("g", { class: `series series-${n % DASHES.length}` });
    if (own[0].length > 2) {
      const band = [...own.map(([at, , low]) => [at, low]), ...own.map(([at, , , high]) => [at, high]).reverse()];
      group.append(drawn("polygon", { class: "band", points: band.map(([px, py]) => `${x(px)},${y(py)}`).join(" ") }));
    }
    const line = own.map(([px, py]) => `${x(px)},${y(py)}`).join(" ");
    group.append(drawn("polyline", { points: line, "stroke-dasharray": DASHES[n % DASHES.length] }));
    if (own[0].length > 2 || own.length < 40) {
      for (const [px, py] of own) group.append(drawn("circle", { cx: x(px), cy: y(py), r: 4 }, drawn("title", {}, `${name}: ${py} at ${px}`)));
    }
    group.append(drawn("line", { x1: left, x2: left + 40, y1: 12 + 20 * n, y2: 12 + 20 * n, "stroke-dasharray": DASHES[n % DASHES.length] }));
    made.append(group, drawn("text", { x: left + 48, y: 16 + 20 * n }, cut(name, Math.floor((width - left - 60) / 7))));
  });
  return made;
}

// A metric with its interval at each point of a sweep; short lines are single seeds.
function points({ points: all, x: xTitle, y: yTitle }, width) {
  const numbers = all.every((point) => point.x !== null), names = numbers ? null : all.map((point) => point.label);
  const { made, x, y, left } = plane(width, 340, 34, { xs: all.map((point) => point.x), ys: all.flatMap((point) => [point.value, ...point.reach, ...point.runs]), x: xTitle, y: yTitle, names });
  all.forEach((point, n) => {
    const px = x(numbers ? point.x : n), kind = { "no evidence": "no", "not tested": "no", base: "base" }[point.kind] ?? point.kind;
    const group = drawn("g", { class: kind }, drawn("title", {}, point.text));
    group.append(drawn("line", { x1: px, x2: px, y1: y(point.reach[0]), y2: y(point.reach[1]), "stroke-width": 2.5 }), mark(kind, px, y(point.value)));
    for (const run of point.runs) group.append(drawn("line", { x1: px - 9, x2: px + 9, y1: y(run), y2: y(run) }));
    made.append(group);
  });
  const kinds = [...new Set(all.map((point) => point.kind))];
  let place = left;
  for (const kind of kinds) {
    const shape = { "no evidence": "no", "not tested": "no" }[kind] ?? kind;
    made.append(drawn("g", { class: shape }, mark(shape, place + 6, 14)), drawn("text", { x: place + 18, y: 18 }, kind));
    place += 40 + 7 * kind.length;
  }
  return made;
}
