(() => {
"use strict";
// Draws the charts of a page anew from the tables of their numbers, to read values off and zoom.
const root = document.documentElement;
const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const day = 86400;
const all = [];
const numberOf = (text) => {
  const value = parseFloat(text.replace(/,/g, "").replace("\u2212", "-"));
  return Number.isFinite(value) ? value : null;
};
// The clock of the model's zone, taken for UTC, so that every browser shows the same days.
const timeOf = (label) => Date.parse(label.replace(" ", "T") + (label.length > 10 ? ":00Z" : "T00:00:00Z")) / 1000;

const read = (table) => {
  const roles = [...table.tHead.rows[0].cells].slice(1).map((cell) => ({ role: cell.dataset.role, name: cell.textContent }));
  const rows = [...table.tBodies[0].rows].reverse();
  const labels = rows.map((row) => row.cells[0].textContent.trim());
  const columns = roles.map((_, i) => rows.map((row) => numberOf(row.cells[i + 1].textContent)));
  const texts = roles.map((_, i) => rows.map((row) => row.cells[i + 1].textContent.trim()));
  return { roles, labels, columns, texts, times: labels.map(timeOf) };
};

const say = (data, place) => {
  if (place === null || place === undefined || !data.labels[place]) return "";
  const parts = [];
  const at = (role) => data.roles.findIndex((r) => r.role === role);
  const low = at("lower"), high = at("upper");
  data.roles.forEach((r, i) => {
    if (r.role === "value") parts.push(data.texts[i][place] + (low >= 0 ? ` (${data.texts[low][place]} to ${data.texts[high][place]})` : ""));
    if (r.role === "truth" || r.role === "mean") parts.push(`${r.name.toLowerCase()} ${data.texts[i][place]}`);
  });
  return `${data.labels[place]}: ${parts.join(", ")}`;
};

const draw = (figure) => {
  const table = figure.querySelector("table.data"), plot = figure.querySelector(".plot");
  const data = read(table), readout = figure.querySelector(".readout");
  if (data.times.length < 2 || data.times.some((t, i) => !Number.isFinite(t) || (i && t <= data.times[i - 1]))) return;
  const step = Math.min(...data.times.slice(1).map((t, i) => t - data.times[i]));
  const set = figure.dataset, limit = set.limit === undefined ? null : +set.limit, base = set.baseline === undefined ? null : +set.baseline;
  const marks = (set.marks || "").split(" ").filter(Boolean).map((pair) => pair.split("-").map(Number));
  const events = JSON.parse(set.events || "[]");
  const at = (role) => data.roles.findIndex((r) => r.role === role) + 1;
  const style = { value: "--c0", truth: "--truth", mean: "--truth" }, hasMean = at("mean") > 0, prefix = hasMean ? "mean_" : "";
  const width = { value: hasMean ? 1 : 1.6, truth: 1.2, mean: 2 };
  const series = [{}].concat(data.roles.map((r) => /lower|upper/.test(r.role)
    ? { scale: "y", stroke: "transparent", width: 0, points: { show: false } }
    : { scale: "y", stroke: () => colour(style[r.role]), width: width[r.role], alpha: hasMean && r.role === "value" ? .45 : 1, points: { show: data.times.length < 40 && r.role !== "mean" ? undefined : false, size: 5 } }));
  const bands = at(prefix + "lower") ? [{ series: [at(prefix + "upper"), at(prefix + "lower")], fill: () => colour("--band") }] : [];
  const shownColumns = [...data.columns], open = new Set((set.open || "").split(" ").filter(Boolean).map(Number));
  if (open.size) {
    // Windows that may still change are dashed, with hollow dots, from the window before on.
    const value = at("value") - 1, known = data.columns[value];
    shownColumns[value] = known.map((v, i) => open.has(i) ? null : v);
    shownColumns.push(known.map((v, i) => open.has(i - 1) || open.has(i) || open.has(i + 1) ? v : null));
    series.push({ scale: "y", stroke: () => colour("--c0"), width: 1.4, dash: [3, 4], points: { show: true, size: 6, fill: () => colour("--card"), filter: (u, i) => [...open] } });
  }
  const line = (u, value, name, dash) => {
    if (value === null) return;
    const y = Math.round(u.valToPos(value, "y", true));
    if (y < u.bbox.top || y > u.bbox.top + u.bbox.height) return;
    u.ctx.save();
    u.ctx.strokeStyle = colour(name); u.ctx.setLineDash(dash); u.ctx.lineWidth = 1.5 * devicePixelRatio;
    u.ctx.beginPath(); u.ctx.moveTo(u.bbox.left, y); u.ctx.lineTo(u.bbox.left + u.bbox.width, y); u.ctx.stroke();
    u.ctx.restore();
  };
  const shade = (u) => {
    u.ctx.save();
    u.ctx.beginPath(); u.ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height); u.ctx.clip();
    u.ctx.fillStyle = colour("--mark");
    for (const [first, last] of marks) {
      const from = u.valToPos(data.times[first] - step / 2, "x", true), to = u.valToPos(data.times[last] + step / 2, "x", true);
      u.ctx.fillRect(from, u.bbox.top, Math.max(to - from, 2), u.bbox.height);
    }
    u.ctx.restore();
  };
  const happened = (u) => {
    const ends = [-1e9, -1e9], d = devicePixelRatio;
    u.ctx.save();
    u.ctx.strokeStyle = u.ctx.fillStyle = colour("--event"); u.ctx.lineWidth = d; u.ctx.font = `${11 * d}px system-ui, sans-serif`;
    for (const [place, mark] of events) {
      const x = Math.round(u.valToPos(data.times[place], "x", true));
      if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) continue;
      const wide = u.ctx.measureText(mark).width, left = x + wide > u.bbox.left + u.bbox.width, row = x > ends[0] ? 0 : x > ends[1] ? 1 : 0;
      ends[row] = x + wide + 12 * d;
      u.ctx.beginPath(); u.ctx.moveTo(x, u.bbox.top); u.ctx.lineTo(x, u.bbox.top + u.bbox.height); u.ctx.stroke();
      u.ctx.fillText(mark, left ? x - wide - 4 * d : x + 4 * d, u.bbox.top + (9 + 12 * row) * d);
    }
    u.ctx.restore();
  };
  const shown = (u, low, high) => {
    // Of the windows in sight, with baseline and limit; as the picture without a script has it.
    const [from, to] = [u.scales.x.min, u.scales.x.max], known = [];
    data.columns.filter((_, i) => !hasMean || !/^(lower|upper)$/.test(data.roles[i].role)).forEach((column) => column.forEach((v, i) => { if (v !== null && data.times[i] >= from && data.times[i] <= to) known.push(v); }));
    if (!known.length) return [+set.low, +set.high];
    for (const v of [base, limit]) if (v !== null) known.push(v);
    let a = Math.min(...known), b = Math.max(...known);
    const room = (b - a) * .06 || Math.abs(b) * .1 || 1;
    a -= room; b += room;
    if (set.share) { a = Math.max(a, 0); b = Math.min(b, 1); }
    if (set.floor) a = 0;
    return [a, b > a ? b : a + 1];
  };
  const axis = { stroke: () => colour("--soft"), font: "12px system-ui, sans-serif", grid: { stroke: () => colour("--grid"), width: 1 }, ticks: { show: false } };
  const height = figure.closest(".multiples") ? 140 : 190, narrow = plot.clientWidth < 500, daily = step >= 23 * 3600;
  // Of windows of days no tick is within a day; of shorter ones a second line names the day.
  const ticks = daily ? { size: 28, incrs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 30, 60, 90, 120, 180, 365, 730, 1825, 3650].map((n) => n * day) } : { size: 42 };
  const u = new uPlot({
    width: plot.clientWidth, height, tzDate: (t) => uPlot.tzDate(new Date(t * 1e3), "Etc/UTC"), legend: { show: false },
    padding: [8, 20, 0, 0],
    cursor: { sync: { key: "mlmon", scales: ["x", null] }, drag: { x: true, y: false }, points: { size: 6 } },
    scales: { x: { time: true }, y: { range: shown } },
    axes: [{ ...axis, space: narrow ? 70 : 60, ...ticks, values: [
      [day * 365, "{YYYY}", null, null, null, null, null, null, 1], [day * 28, "{MMM} {YYYY}", null, null, null, null, null, null, 1],
      [day, "{D} {MMM}", null, null, null, null, null, null, 1], [3600, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1]] },
      { ...axis, size: narrow ? 48 : 60, values: (_, ticks) => ticks.map((t) => Math.abs(t) >= 1e4 ? `${+(t / 1e3).toFixed(1)}k` : String(+t.toPrecision(6))) }],
    series, bands,
    hooks: { drawClear: [shade], draw: [(u) => { line(u, base, "--base", [6, 4]); line(u, limit, "--limit", [2, 4]); happened(u); }],
      setCursor: [(u) => { const mark = events.find(([place]) => place === u.cursor.idx); readout.textContent = say(data, u.cursor.idx) + (mark ? `, ${mark[1]}` : ""); }] },
  }, [data.times, ...shownColumns], plot);
  u.root.setAttribute("aria-hidden", "true");
  figure.classList.add("live");
  u.setSize({ width: plot.clientWidth, height });
  plot.tabIndex = 0;
  let place = data.times.length - 1;
  plot.addEventListener("focus", () => { readout.setAttribute("aria-live", "polite"); });
  plot.addEventListener("blur", () => { readout.setAttribute("aria-live", "off"); });
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") { show(null, null); return; }
    if (step === undefined) return;
    event.preventDefault();
    place = Math.max(0, Math.min(data.times.length - 1, place + step));
    u.setCursor({ left: u.valToPos(data.times[place], "x"), top: 60 });
    readout.textContent = say(data, place);
  });
  new ResizeObserver(() => { if (plot.clientWidth && plot.clientWidth !== u.width) u.setSize({ width: plot.clientWidth, height }); }).observe(plot);
  all.push({ u, data });
};

const show = (from, to) => {
  for (const { u, data } of all) u.setScale("x", { min: from === null ? data.times[0] : from, max: to === null ? data.times[data.times.length - 1] : to });
};

const strips = (table) => {
  const data = read(table.closest(".card").querySelector("table.data")), readout = table.querySelector(".readout");
  const names = data.roles.map((r) => r.name);
  for (const row of table.tBodies[0].rows) {
    const strip = row.querySelector("svg"), column = names.indexOf(row.cells[0].firstChild.textContent.trim());
    if (!strip || column < 0) continue;
    strip.addEventListener("mousemove", (event) => {
      const box = strip.getBoundingClientRect(), place = Math.min(data.labels.length - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * data.labels.length)));
      readout.textContent = `${data.labels[place]}: ${names[column]} ${data.texts[column][place]}`;
    });
  }
};

// The strips of families: the day under the pointer is named, a click selects it.
const days = (table) => {
  const labels = table.dataset.days.split(","), readout = table.querySelector(".readout");
  for (const strip of table.querySelectorAll("svg.strip")) {
    const at = (event) => {
      const box = strip.getBoundingClientRect();
      return labels[Math.min(labels.length - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * labels.length)))];
    };
    strip.addEventListener("mousemove", (event) => { readout.textContent = at(event); });
    strip.addEventListener("mouseleave", () => { readout.textContent = ""; });
    strip.addEventListener("click", (event) => {
      const label = at(event).slice(0, 10), form = document.querySelector("form.asked"), zoom = document.getElementById("zoom-from");
      const [from, to] = form ? [form.elements.from, form.elements.to] : [zoom, document.getElementById("zoom-to")];
      from.value = to.value = label;
      if (form) form.requestSubmit(); else { zoom.dispatchEvent(new Event("change")); document.getElementById("layers")?.scrollIntoView(); }
    });
  }
};

// One after another, when each comes near, so that the first paint waits for none.
const waiting = new IntersectionObserver((seen) => {
  for (const one of seen) if (one.isIntersecting) { waiting.unobserve(one.target); draw(one.target); }
}, { rootMargin: "600px" });
document.querySelectorAll("figure.chart").forEach((figure) => waiting.observe(figure));
document.querySelectorAll("table.strips").forEach(strips);
document.querySelectorAll("table.days").forEach(days);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const { u } of all) u.redraw(false); });

// The cards of columns, searched and sorted.
const sift = document.getElementById("sift");
if (sift) {
  const grid = document.getElementById("columns"), cards = [...grid.children];
  const text = document.getElementById("sift-text"), order = document.getElementById("sift-order");
  text.addEventListener("input", () => {
    for (const card of cards) card.hidden = !card.dataset.name.toLowerCase().includes(text.value.trim().toLowerCase());
  });
  order.addEventListener("change", () => {
    const by = order.value, sorted = [...cards];
    if (by) sorted.sort((a, b) => by === "name" ? a.dataset.name.localeCompare(b.dataset.name) : b.dataset[by] - a.dataset[by]);
    grid.append(...sorted);
  });
  sift.hidden = false;
}

const zoom = document.getElementById("zoom");
if (zoom) {
  const [from, to] = ["zoom-from", "zoom-to"].map((id) => document.getElementById(id));
  const change = () => {
    document.querySelectorAll("figure.chart:not(.live)").forEach((figure) => { waiting.unobserve(figure); draw(figure); });
    show(from.value ? timeOf(from.value) : null, to.value ? timeOf(to.value) + day - 1 : null);
  };
  from.addEventListener("change", change); to.addEventListener("change", change);
  for (const button of zoom.querySelectorAll("button")) button.addEventListener("click", () => { from.value = button.dataset.from; to.value = button.dataset.to; change(); });
  zoom.hidden = false;
}
})();
