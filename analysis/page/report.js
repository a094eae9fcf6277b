"use strict";
// Everything from the study arrives as JSON and reaches the page through textContent, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);

  // ---- figures and colour scheme -------------------------------------------------------------------------------
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
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
      const layout = { ...figure.layout, template: data.templates[scheme()] };
      // A finger that scrolls the page must not zoom the figure under it.
      if (narrow.matches) { layout.dragmode = false; }
      Plotly.newPlot(plot, figure.data, layout, config);
      plot.on("plotly_click", (event) => {
        const id = event.points[0].customdata;
        if (typeof id === "string") mark(id);
      });
      plots.push(plot);
    }
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

  function visible() {
    const kept = rows.filter((row) => !hiddenKinds.has(kind(row)));
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
        fill();
      });
      const label = document.createElement("label");
      label.append(box, `${name} (${rows.filter((row) => kind(row) === name).length})`);
      by("states").append(label);
    }
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
    fill();
    by("csv").addEventListener("click", download);
    by("more").addEventListener("click", () => { everything = true; fill(); });
  }
})();
