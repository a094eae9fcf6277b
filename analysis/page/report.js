"use strict";
// Everything from the study arrives as JSON and reaches the page through textContent, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);

  // ---- figures and colour scheme -------------------------------------------------------------------------------
  const config = { responsive: true, displaylogo: false, showSendToCloud: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const plots = [];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null; // what the reader picked; until then the system decides

  const scheme = () => chosen ?? (dark.matches ? "dark" : "light");
  const narrow = window.matchMedia("(max-width: 520px)");

  function paint(name) {
    root.dataset.theme = name;
    by("theme").textContent = name === "dark" ? "Light" : "Dark";
    by("theme").setAttribute("aria-label", `Switch to ${name === "dark" ? "light" : "dark"} colours`);
    return Promise.all(plots.map((plot) => Plotly.relayout(plot, { template: data.templates[name] })));
  }

  function draw() {
    for (const [id, figure] of Object.entries(data.figures)) {
      const plot = by(id);
      const { sliders, updatemenus, ...rest } = figure.layout;
      const layout = { ...rest, template: data.templates[scheme()] };
      // A finger that scrolls the page must not zoom the figure under it.
      if (narrow.matches) { layout.dragmode = false; }
      Plotly.newPlot(plot, figure.data, layout, config);
      if (figure.frames?.length) animation(plot, figure.frames, sliders[0]);
      plot.on("plotly_click", (event) => {
        const id = event.points[0].customdata;
        if (typeof id === "string") mark(id);
      });
      plots.push(plot);
    }
  }

  // Plotly's own slider is beyond the keyboard's reach, and hard to hit with a finger.
  function animation(plot, frames, { steps, active }) {
    const [box, play, slider, said] = ["div", "button", "input", "output"].map((name) => document.createElement(name));
    box.className = "animation";
    play.type = "button";
    Object.assign(slider, { type: "range", min: 0, max: frames.length - 1, value: active ?? 0 });
    slider.setAttribute("aria-label", `Step through: ${plot.getAttribute("aria-label")}`);
    let timer = null;
    const name = () => { play.textContent = timer === null ? "Play" : "Pause"; };
    const show = () => {
      const i = Number(slider.value);
      said.textContent = steps[i].label;
      slider.setAttribute("aria-valuetext", steps[i].label);
      Plotly.animate(plot, { data: frames[i].data, traces: frames[i].traces }, steps[i].args[1]);
    };
    const stop = () => { clearInterval(timer); timer = null; name(); };
    const next = () => {
      if (Number(slider.value) === frames.length - 1) return stop();
      slider.value = Number(slider.value) + 1;
      show();
    };
    play.addEventListener("click", () => {
      if (timer !== null) return stop();
      if (Number(slider.value) === frames.length - 1) { slider.value = 0; show(); }
      timer = setInterval(next, 450);
      name();
    });
    slider.addEventListener("input", () => { if (timer !== null) stop(); show(); });
    said.textContent = steps[active ?? 0].label;
    slider.setAttribute("aria-valuetext", said.textContent);
    name();
    box.append(play, slider, said);
    plot.after(box);
  }

  by("theme").addEventListener("click", () => {
    chosen = scheme() === "dark" ? "light" : "dark";
    paint(chosen);
  });
  dark.addEventListener("change", () => { if (chosen === null) paint(scheme()); });
  window.addEventListener("beforeprint", () => { root.dataset.theme = "light"; plots.forEach((p) => Plotly.relayout(p, { template: data.templates.light })); });
  window.addEventListener("afterprint", () => paint(scheme()));

  // ---- one trial, marked everywhere ----------------------------------------------------------------------------
  let marked = null;

  function ring(plot, id) {
    const old = plot.data.flatMap((trace, i) => (trace.meta === "mark" ? [i] : []));
    if (old.length) Plotly.deleteTraces(plot, old);
    if (id === null) return;
    const rings = [];
    for (const trace of plot.data) {
      if (!Array.isArray(trace.customdata)) continue;
      const at = trace.customdata.flatMap((owner, i) => (owner === id ? [i] : []));
      if (!at.length) continue;
      const lines = trace.mode === "lines";
      rings.push({
        x: at.map((i) => trace.x[i]), y: at.map((i) => trace.y[i]), mode: lines ? "lines" : "markers", meta: "mark",
        hoverinfo: "skip", showlegend: false, line: { color: "#E69F00", width: 4, shape: "linear" },
        marker: { symbol: "circle-open", size: 19, color: "#E69F00", line: { width: 3, color: "#E69F00" } },
      });
    }
    if (rings.length) Plotly.addTraces(plot, rings);
  }

  function mark(id) {
    marked = id === marked ? null : id;
    plots.forEach((plot) => ring(plot, marked));
    document.querySelectorAll("tr[data-trial]").forEach((row) => row.classList.toggle("marked", row.dataset.trial === marked));
    by("marked").hidden = marked === null;
    if (marked !== null) by("marked").firstElementChild.textContent = describe(marked);
  }

  function describe(id) {
    const row = data.trials.rows.find((cells) => cells[0] === id);
    if (!row) return id;
    const facts = data.trials.columns.map((column, i) => [column, row[i]]).filter(([c, v]) => v !== null && v !== "" && c.key !== "trial_id");
    return `${id} · ` + facts.map(([c, v]) => (c.number ? `${c.label} ${number(v, c)}` : v)).join(" · ");
  }

  by("marked").lastElementChild.addEventListener("click", () => mark(marked));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && marked !== null) mark(marked); });
  document.addEventListener("click", (event) => {
    const pick = event.target.closest(".pick");
    if (pick) mark(pick.dataset.trial);
  });

  // ---- the table of trials -------------------------------------------------------------------------------------
  const PAGE = 200;
  const { columns, rows } = data.trials;
  const at = (key) => columns.findIndex((column) => column.key === key);
  const [state, baseline] = [at("state"), at("baseline")];
  const kind = (row) => (baseline >= 0 && row[baseline] ? "baseline" : row[state]);
  let order = { column: null, descending: false };
  let everything = false;
  const hiddenKinds = new Set();
  const limits = {}; // column → [place in the table, test that a value must pass]

  function number(value, { digits, unit }) {
    if (value === null) return "–";
    if (!unit && value !== 0 && Math.abs(value) < 10 ** (1 - digits)) return String(Number(value.toPrecision(3)));
    return value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  function compare(a, b) {
    const [x, y] = [a[order.column], b[order.column]];
    const none = (v) => v === null || v === "";
    if (none(x) || none(y)) return none(x) - none(y); // missing values stay last in both directions
    const result = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return order.descending ? -result : result;
  }

  function allowed(row) {
    return !hiddenKinds.has(kind(row)) && Object.values(limits).every(([i, passes]) => row[i] !== null && passes(row[i]));
  }

  function visible() {
    const kept = rows.filter(allowed);
    return order.column === null ? kept : kept.slice().sort(compare);
  }

  function cell(value, column) {
    const td = document.createElement("td");
    td.textContent = column.number ? number(value, column) : value ?? "";
    if (!column.number) td.className = column.key === "reason" ? "reason" : "text";
    return td;
  }

  function line(row) {
    const tr = document.createElement("tr");
    tr.dataset.trial = row[0];
    tr.classList.toggle("marked", row[0] === marked);
    const head = document.createElement("th");
    head.scope = "row";
    const pick = document.createElement("button");
    pick.type = "button";
    pick.className = "pick";
    pick.dataset.trial = pick.textContent = row[0];
    head.append(pick);
    tr.append(head, ...columns.slice(1).map((column, i) => cell(row[i + 1], column)));
    return tr;
  }

  function fill() {
    const kept = visible();
    const shown = everything ? kept : kept.slice(0, PAGE);
    document.querySelector("#trial-table tbody").replaceChildren(...shown.map(line));
    by("shown").textContent = shown.length < kept.length ? `${shown.length} of ${kept.length} rows` : `${kept.length} of ${rows.length} rows`;
    by("more").hidden = shown.length === kept.length;
    document.querySelectorAll("#trial-table thead th").forEach((th, i) => {
      const mine = order.column === i;
      th.setAttribute("aria-sort", mine ? (order.descending ? "descending" : "ascending") : "none");
      th.firstElementChild.lastElementChild.textContent = mine ? (order.descending ? " ↓" : " ↑") : "";
    });
  }

  function headings() {
    columns.forEach((column, i) => {
      const th = document.createElement("th");
      th.scope = "col";
      if (!column.number) th.className = "text";
      const button = document.createElement("button");
      button.type = "button";
      button.append(column.label, document.createElement("span"));
      button.addEventListener("click", () => {
        // The first press puts what a reader looks for on top: the largest number, the first letter.
        order = { column: i, descending: order.column === i ? !order.descending : column.number };
        fill();
      });
      th.append(button);
      document.querySelector("#trial-table thead tr").append(th);
    });
  }

  function filters() {
    for (const name of [...new Set(rows.map(kind))]) {
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.value = name;
      box.addEventListener("change", () => {
        box.checked ? hiddenKinds.delete(name) : hiddenKinds.add(name);
        apply();
      });
      const label = document.createElement("label");
      label.append(box, `${name} (${rows.filter((row) => kind(row) === name).length})`);
      by("states").append(label);
    }
  }

  // Every place of a slider is a value that a trial has, so that sparsities crowded below 100 % are told apart.
  function limit(key, atLeast) {
    const i = at(key);
    const values = i < 0 ? [] : [...new Set(rows.map((row) => row[i]).filter((v) => v !== null))].sort((a, b) => (atLeast ? a - b : b - a));
    if (values.length < 2) return;
    const [label, slider, said] = ["label", "input", "output"].map((name) => document.createElement(name));
    Object.assign(slider, { type: "range", min: 0, max: values.length - 1, value: 0, id: `limit-${key}` });
    const show = () => {
      const value = values[Number(slider.value)];
      const open = Number(slider.value) === 0;
      said.textContent = open ? "any" : `${atLeast ? "≥" : "≤"} ${number(value, columns[i])}${columns[i].unit ? ` ${columns[i].unit}` : ""}`;
      slider.setAttribute("aria-valuetext", said.textContent);
      if (open) delete limits[key];
      else limits[key] = [i, (v) => (atLeast ? v >= value : v <= value)];
    };
    slider.addEventListener("input", () => { show(); apply(); });
    show();
    label.className = "limit";
    label.append(columns[i].short, slider, said);
    by("filters").append(label);
  }

  // Marks of trials that the filters leave out fade in every figure.
  let waiting = false;
  function apply() {
    fill();
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; plots.forEach(fade); });
  }

  function fade(plot) {
    const kept = new Set(rows.filter(allowed).map((row) => row[0]));
    const known = new Set(rows.map((row) => row[0]));
    const all = kept.size === known.size;
    const which = plot.data.flatMap((trace, i) => (Array.isArray(trace.customdata) && /markers/.test(trace.mode ?? "") ? [i] : []));
    if (!which.length) return;
    const points = which.map((i) => (all ? null : plot.data[i].customdata.flatMap((id, at) => (known.has(id) && !kept.has(id) ? [] : [at]))));
    Plotly.restyle(plot, { selectedpoints: points, "unselected.marker.opacity": 0.07 }, which);
  }

  function download() {
    const quote = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const lines = [columns.map((column) => column.key), ...visible()].map((row) => row.map((v) => quote(String(v ?? ""))).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
    link.download = data.csv;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  root.dataset.theme = scheme();
  paint(scheme());
  draw();
  if (rows.length) {
    headings();
    filters();
    limit("val_accuracy", true);
    at("file_bytes") >= 0 ? limit("file_bytes", false) : limit("sparsity", true);
    fill();
    by("csv").addEventListener("click", download);
    by("more").addEventListener("click", () => { everything = true; fill(); });
  }
})();
