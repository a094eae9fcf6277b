"use strict";
// Everything from the study arrives as JSON and reaches the page through textContent, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);

  // ---- figures and colour scheme -------------------------------------------------------------------------------
  const config = { responsive: true, displaylogo: false, showSendToCloud: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const plots = Object.keys(data.figures).map(by);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null; // what the reader picked; until then the system decides

  const scheme = () => chosen ?? (dark.matches ? "dark" : "light");
  const finger = window.matchMedia("(max-width: 520px), (pointer: coarse)");

  function paint(name) {
    root.dataset.theme = name;
    by("theme").textContent = name === "dark" ? "Light" : "Dark";
    by("theme").setAttribute("aria-label", `Switch to ${name === "dark" ? "light" : "dark"} colours`);
    catchUp();
  }

  function draw(plot) {
    const figure = data.figures[plot.id];
    const { sliders, updatemenus, ...rest } = figure.layout;
    const layout = { ...rest, template: data.templates[root.dataset.theme] };
    // A finger that scrolls the page must not zoom the figure under it, and there is no room for the buttons of that.
    if (finger.matches) layout.dragmode = false;
    Plotly.newPlot(plot, figure.data, layout, { ...config, displayModeBar: finger.matches ? false : "hover" });
    // Where nothing is dragged Plotly hears a touch twice, as itself and as the mouse that browsers make of it.
    plot.addEventListener("touchend", (event) => { if (event.cancelable && event.target.closest(".drag")) event.preventDefault(); });
    plot.on("plotly_afterplot", () => { if (kept !== null) fade(plot); }); // zoomed, say: the elements may be new ones
    if (layout.meta?.axes) { brushes(plot); plot.on("plotly_afterplot", () => placeBrushes(plot)); }
    plot.on("plotly_click", (event) => {
      const id = event.points[0].customdata;
      if (typeof id === "string") mark(id);
    });
  }

  // What the reader changes shows in the figures in sight first, and in the others one after another, so that a page of
  // thousands of trials answers as fast as one of a hundred.
  const AT_ONCE = 1500; // marks drawn before the reader gets a turn: about a tenth of a second
  const shown = new Map(); // figure → what it shows
  let kept = null; // ids of the trials that the filters leave; null for all
  let turn = 0;

  function current(plot) {
    const has = shown.get(plot);
    return has?.scheme === root.dataset.theme && has.marked === marked && has.kept === kept;
  }

  const folded = (plot) => plot.closest("details:not([open])") !== null; // drawn when it is unfolded

  function away(plot) { // pixels beyond the window's edge
    const { top, bottom } = plot.getBoundingClientRect();
    return Math.max(0, top - window.innerHeight, -bottom);
  }

  function bring(plot) {
    const old = shown.get(plot) ?? { marked: null, kept: null };
    shown.set(plot, { scheme: root.dataset.theme, marked, kept });
    if (!old.scheme) draw(plot);
    else if (old.scheme !== root.dataset.theme) Plotly.relayout(plot, { template: data.templates[root.dataset.theme] });
    if (old.kept !== kept) fade(plot);
    if (old.marked !== marked) ring(plot);
    return plot.data.reduce((sum, trace) => sum + (/markers/.test(trace.mode) ? trace.x.length : 0), 1);
  }

  function catchUp(atOnce = AT_ONCE) {
    const mine = ++turn;
    const late = plots.filter((plot) => !current(plot) && !folded(plot)).map((plot) => [away(plot), plot]).sort(([a], [b]) => a - b);
    let marks = 0;
    for (const [distance, plot] of late) {
      const painted = marks > 0 && late[0][0] === 0 && distance > 0; // those in sight, before any other is begun
      if (marks >= atOnce || (painted && atOnce < Infinity)) {
        requestAnimationFrame(() => setTimeout(() => { if (mine === turn) catchUp(); }));
        return;
      }
      marks += bring(plot);
    }
  }
  window.addEventListener("scroll", () => catchUp(), { passive: true });

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
      if (!current(plot)) bring(plot);
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

  const asText = (label) => label.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"); // of a figure

  // A menu in place of Plotly's own, which the keyboard does not reach.
  function menu(plot, { buttons }, name) {
    const [label, select] = ["label", "select"].map((tag) => document.createElement(tag));
    label.className = "menu";
    buttons.forEach((button, i) => select.add(new Option(asText(button.label), i)));
    select.name = plot.id;
    select.addEventListener("change", () => {
      if (!current(plot)) bring(plot);
      Plotly.update(plot, ...buttons[Number(select.value)].args);
      ring(plot);
    });
    label.append(name, select);
    plot.before(label);
  }

  // ---- parallel coordinates: a range on an axis is a filter of the complete page --------------------------------
  const brushed = new Map(); // handle → [lower end, upper end], in heights
  const parallels = new Map(); // figure → its axes, in the table's own words
  function axesOf(plot) {
    if (!parallels.has(plot)) parallels.set(plot, data.figures[plot.id].layout.meta.axes.map((axis) => ({ ...axis, key: asText(axis.column), choices: axis.choices.map(asText) })));
    return parallels.get(plot);
  }

  function height(axis, value) { // where a value stands on an axis, in [0, 1] unless it lies beyond
    const { choices, scale, low, high } = axis;
    if (choices.length) {
      const same = choices.findIndex((c) => String(c).toLowerCase() === String(value).toLowerCase() || (value !== "" && Number(c) === Number(value)));
      return same < 0 ? NaN : same / Math.max(1, choices.length - 1);
    }
    const at = scale === "log" ? Math.log10(value) : scale === "complement" ? Math.log10(Math.max(100 - value, 1e-3)) : value;
    return Math.min(1, Math.max(0, (at - low) / (high - low)));
  }

  function inWords(axis, [from, to]) {
    if (axis.choices.length) return axis.choices.filter((_, i) => { const h = i / Math.max(1, axis.choices.length - 1); return h >= from && h <= to; }).join(", ") || "none";
    const value = (h) => { const at = axis.low + h * (axis.high - axis.low); return axis.scale === "linear" ? at : axis.scale === "log" ? 10 ** at : 100 - 10 ** at; };
    return [value(from), value(to)].sort((a, b) => a - b).map((v) => Number(v.toPrecision(4))).join(" to ");
  }

  function setBrush(handle, axis, range) { // null lets go
    const isOpen = !range || (range[0] <= 0 && range[1] >= 1);
    if (isOpen) { brushed.delete(handle); delete limits[`axis ${axis.key}`]; }
    else {
      brushed.set(handle, range);
      limits[`axis ${axis.key}`] = [at(axis.key), (value) => { const h = height(axis, value); return h >= range[0] - 1e-9 && h <= range[1] + 1e-9; }];
    }
    const band = handle.firstElementChild;
    band.hidden = isOpen;
    if (!isOpen) Object.assign(band.style, { bottom: `${100 * range[0]}%`, top: `${100 * (1 - range[1])}%` });
    handle.setAttribute("aria-valuetext", isOpen ? "any" : inWords(axis, range));
    handle.setAttribute("aria-valuenow", isOpen ? 0 : Math.round(100 * range[0]));
    handle.title = isOpen ? "" : handle.getAttribute("aria-valuetext");
    apply();
  }

  function brushes(plot) {
    const box = document.createElement("div");
    box.className = "brushes";
    for (const axis of axesOf(plot)) {
      if (at(axis.key) < 0) continue;
      const handle = document.createElement("div");
      handle.append(document.createElement("span"));
      handle.axis = axis;
      handle.tabIndex = 0;
      for (const [name, value] of [["role", "slider"], ["aria-orientation", "vertical"], ["aria-valuemin", 0], ["aria-valuemax", 100], ["aria-label", `${columns[at(axis.key)].label}: keep a range`]]) handle.setAttribute(name, value);
      let from = null, to = null;
      const h = (event) => { const { top, height: tall } = handle.getBoundingClientRect(); return Math.min(1, Math.max(0, 1 - (event.clientY - top) / tall)); };
      handle.addEventListener("pointerdown", (event) => { event.preventDefault(); handle.focus({ preventScroll: true }); handle.setPointerCapture(event.pointerId); from = to = h(event); });
      handle.addEventListener("pointermove", (event) => {
        if (from === null) return;
        to = h(event);
        if (Math.abs(to - from) > 0.02) setBrush(handle, axis, [Math.min(from, to), Math.max(from, to)]);
      });
      const done = () => { if (from !== null && Math.abs(to - from) <= 0.02) setBrush(handle, axis, null); from = null; };
      handle.addEventListener("pointerup", done);
      handle.addEventListener("pointercancel", () => { from = null; });
      handle.addEventListener("keydown", (event) => {
        const step = axis.choices.length > 1 ? 1 / (axis.choices.length - 1) : 0.05;
        const by = { ArrowUp: step, ArrowRight: step, ArrowDown: -step, ArrowLeft: -step }[event.key];
        if (event.key === "Escape" || event.key === "Delete") { if (brushed.has(handle)) event.stopPropagation(); setBrush(handle, axis, null); return; }
        if (by === undefined) return;
        event.preventDefault();
        let [low, high] = brushed.get(handle) ?? [0, 1];
        if (event.shiftKey) high = Math.min(1, Math.max(low, high + by));
        else low = Math.max(0, Math.min(high, low + by));
        setBrush(handle, axis, [low, high]);
      });
      box.append(handle);
      handle.firstElementChild.hidden = true;
      handle.setAttribute("aria-valuetext", "any");
      handle.setAttribute("aria-valuenow", 0);
    }
    plot.after(box);
    placeBrushes(plot);
  }

  function placeBrushes(plot) {
    const box = plot.nextElementSibling, { xaxis, yaxis } = plot._fullLayout;
    if (!box?.classList.contains("brushes") || !xaxis._length) return;
    const axes = axesOf(plot);
    for (const handle of box.children) {
      const top = plot.offsetTop + yaxis._offset + yaxis.l2p(1), tall = yaxis.l2p(0) - yaxis.l2p(1);
      Object.assign(handle.style, { left: `${plot.offsetLeft + xaxis._offset + xaxis.l2p(axes.indexOf(handle.axis)) - 13}px`, top: `${top}px`, height: `${tall}px` });
    }
  }

  // Lines of trials that the filters leave out move into the first, faint bundle.
  const bundles = new Map(); // figure → its bundles as they came
  function fadeLines(plot) {
    if (plot.faded === kept) return;
    plot.faded = kept;
    if (!bundles.has(plot)) bundles.set(plot, plot.data.map(({ x, y, customdata }) => ({ x: [...x], y: [...y], ids: [...customdata] })));
    const lines = bundles.get(plot), stays = (id) => kept === null || !known.has(id) || kept.has(id);
    const out = { x: [], y: [], ids: [] };
    lines.slice(1).forEach(({ x, y, ids }) => ids.forEach((id, i) => { if (!stays(id)) { out.x.push(x[i]); out.y.push(y[i]); out.ids.push(id); } }));
    const now = [out, ...lines.slice(1).map(({ x, y, ids }) => ({ x, y: y.map((v, i) => (stays(ids[i]) ? v : null)), ids }))];
    Plotly.restyle(plot, { x: now.map((t) => t.x), y: now.map((t) => t.y), customdata: now.map((t) => t.ids) }, now.map((_, i) => i));
  }

  by("theme").addEventListener("click", () => {
    chosen = scheme() === "dark" ? "light" : "dark";
    paint(chosen);
  });
  dark.addEventListener("change", () => { if (chosen === null) paint(scheme()); });
  window.addEventListener("beforeprint", () => { unfoldForPrint(); root.dataset.theme = "light"; catchUp(Infinity); });
  window.addEventListener("afterprint", () => { foldAfterPrint(); paint(scheme()); });
  // How wide a figure's place is on the paper is known once the page is laid out for it, and which table is too wide.
  window.matchMedia("print").addEventListener("change", ({ matches }) => {
    for (const box of document.querySelectorAll(".scroll")) {
      box.firstElementChild.style.zoom = "";
      if (matches) box.firstElementChild.style.zoom = Math.min(1, box.clientWidth / box.scrollWidth);
    }
    for (const plot of shown.keys()) Plotly.relayout(plot, matches ? { width: plot.clientWidth } : { width: null, autosize: true });
  });

  // ---- sections that fold --------------------------------------------------------------------------------------
  const folds = [...document.querySelectorAll("main details.fold")];
  let closed = []; // those that printing has unfolded
  const unfoldForPrint = () => { closed = folds.filter((fold) => !fold.open); for (const fold of closed) fold.open = true; };
  const foldAfterPrint = () => { for (const fold of closed) fold.open = false; closed = []; };

  function unfoldTarget() { // what a link leads to is seen, even in a folded section
    const target = location.hash && by(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const own = target.querySelector(":scope > details.fold");
    if (own) own.open = true;
    for (let fold = target.closest("details.fold"); fold; fold = fold.parentElement.closest("details.fold")) fold.open = true;
    target.scrollIntoView();
  }

  function nameFold() { by("fold").textContent = folds.some((fold) => fold.open) ? "Fold all" : "Unfold all"; }
  for (const fold of folds) {
    fold.addEventListener("toggle", () => {
      nameFold();
      // A figure that was folded away when the window changed has another width now.
      if (fold.open) for (const plot of fold.querySelectorAll(".plot")) if (shown.has(plot) && !folded(plot)) Plotly.Plots.resize(plot);
      catchUp();
    });
  }
  by("fold").addEventListener("click", () => {
    const open = !folds.some((fold) => fold.open);
    for (const fold of folds) fold.open = open;
  });
  window.addEventListener("hashchange", unfoldTarget);
  document.querySelector(".bar nav").addEventListener("click", (event) => { // also of the section that the address names
    if (event.target.hash && event.target.hash === location.hash) unfoldTarget();
  });
  by("fold").hidden = folds.length === 0;

  // ---- one trial, marked everywhere ----------------------------------------------------------------------------
  let marked = null;

  // As shapes: Plotly draws the whole figure again for a trace, but not for these. All shapes are set at once, since
  // Plotly shortens its own array while single ones of it are taken away. And never fewer than before: an axis remembers
  // their places until the figure is drawn again, and a double-click looks for them there.
  function ring(plot) {
    const before = plot.layout.shapes ?? [];
    const others = before.filter((shape) => shape.name !== "mark" && shape.name !== "no mark");
    const rings = plot.data.filter((trace) => trace.visible !== false && Array.isArray(trace.customdata)).flatMap((trace) => {
      const at = trace.customdata.flatMap((owner, i) => (owner === marked && there(trace.x[i]) && there(trace.y[i]) ? [i] : []));
      if (trace.mode !== "lines") return at.map((i) => circle(trace.x[i], trace.y[i]));
      return at.length ? [{ type: "path", path: `M${at.map((i) => `${trace.x[i]},${trace.y[i]}`).join("L")}` }] : [];
    });
    const look = { name: "mark", line: { color: "#E69F00", width: 3 } };
    const shapes = [...others, ...rings.map((shape) => ({ ...shape, ...look }))];
    while (shapes.length < before.length) shapes.push({ name: "no mark", visible: false });
    if (shapes.length) Plotly.relayout(plot, { shapes });
  }

  const there = (value) => value !== null && value !== undefined;
  // Not Plotly's own circle, which comes out as an ellipse on a logarithmic axis.
  const ROUND = "M9.5,0C9.5,5.25 5.25,9.5 0,9.5C-5.25,9.5 -9.5,5.25 -9.5,0C-9.5,-5.25 -5.25,-9.5 0,-9.5C5.25,-9.5 9.5,-5.25 9.5,0Z";
  const circle = (x, y) => ({ type: "path", path: ROUND, xsizemode: "pixel", ysizemode: "pixel", xanchor: x, yanchor: y });

  function mark(id) {
    marked = id === marked ? null : id;
    catchUp();
    document.querySelectorAll("tr[data-trial]").forEach((row) => row.classList.toggle("marked", row.dataset.trial === marked));
    by("marked").hidden = marked === null;
    if (marked !== null) by("marked").firstElementChild.textContent = describe(marked);
    if (panel) by("marked").children[1].replaceChildren(...(marked !== null && rowOf(marked) ? [linkTo(marked, "Details")] : []));
  }

  function describe(id) {
    const row = data.trials.rows.find((cells) => cells[0] === id);
    if (!row) return id;
    const facts = data.trials.columns.map((column, i) => [column, row[i]]).filter(([c, v]) => v !== null && v !== "" && c.key !== "trial_id" && c.key !== "started");
    return `${id} · ` + facts.map(([c, v]) => (c.number ? `${c.label} ${number(v, c)}` : v)).join(" · ");
  }

  by("marked").lastElementChild.addEventListener("click", () => mark(marked));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && marked !== null && !panel?.open) mark(marked); });
  document.addEventListener("click", (event) => {
    const pick = event.target.closest(".pick");
    if (pick) mark(pick.dataset.trial);
  });

  // ---- one trial, opened: #t007 in the address leads here, and so do the links in the table ----------------------
  const panel = data.details ? document.createElement("dialog") : null;
  const rowOf = (id) => data.trials.rows.find((cells) => cells[0] === id);
  const element = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });

  function linkTo(id, text) {
    const link = element("a", text, "open");
    link.href = `#${encodeURIComponent(id)}`;
    link.setAttribute("aria-label", `Details of ${id}`);
    return link;
  }

  function named() { // the trial that the address names; a section of that name comes first
    let id = "";
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { /* no address of ours */ }
    return id && !by(id) ? rowOf(id) : undefined;
  }

  function facts(list) {
    const table = element("dl", "", "facts");
    for (const [name, value] of list) {
      const box = document.createElement("div");
      box.append(element("dt", name), element("dd", value));
      table.append(box);
    }
    return table;
  }

  function curve(id) {
    const [epochs, values] = data.details.curves[id] ?? [];
    if (!values?.length || !window.Plotly) return null;
    const plot = element("div");
    const trace = { x: epochs.length ? epochs : values.map((_, i) => i + 1), y: values, mode: values.length > 1 ? "lines" : "markers", line: { width: 2.2, color: "#2E8BC7" }, marker: { color: "#2E8BC7" }, hovertemplate: "epoch %{x}: %{y:.2f}<extra></extra>" };
    const layout = { height: 240, template: data.templates[root.dataset.theme], xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: data.details.column } }, dragmode: false };
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", `Line chart of ${data.details.column} over ${values.length} epochs of ${id}, at the end ${values.at(-1)}.`);
    return [plot, () => Plotly.newPlot(plot, [trace], layout, { ...config, displayModeBar: false })];
  }

  function fillPanel(row) {
    const id = row[0], { columns } = data.trials;
    const name = (baseline >= 0 && row[baseline]) || id;
    const head = element("header");
    const title = element("h2", name);
    title.id = "panel-h";
    title.tabIndex = -1;
    const buttons = element("div", "", "tools");
    const order = visible().map((cells) => cells[0]), place = order.indexOf(id);
    for (const [text, to] of [["Previous", order[place - 1]], ["Next", order[place + 1]]]) {
      const button = element("button", text);
      button.type = "button";
      button.disabled = place < 0 || to === undefined;
      button.addEventListener("click", () => { location.hash = `#${encodeURIComponent(to)}`; });
      buttons.append(button);
    }
    const markIt = element("button", marked === id ? "Unmark" : "Mark in every figure");
    markIt.type = "button";
    markIt.addEventListener("click", () => { mark(id); markIt.textContent = marked === id ? "Unmark" : "Mark in every figure"; });
    const close = element("button", "Close");
    close.type = "button";
    close.addEventListener("click", () => panel.close());
    buttons.append(markIt, close);
    head.append(title, buttons);
    const cells = columns.map((column, i) => [column, row[i]]).filter(([c, v]) => v !== null && v !== "" && !["trial_id", "baseline", "reason"].includes(c.key));
    const parts = [head, element("p", row[at("reason")] ?? "", "detail"), facts(cells.map(([c, v]) => [c.label, c.number ? number(v, c) : c.key === "started" ? v.replace("T", " ").replace(/\.\d+Z$/, " UTC") : v]))];
    for (const line of data.details.tests[id] ?? []) parts.push(element("p", line));
    const drawing = curve(id);
    if (drawing) parts.push(drawing[0]);
    else if (data.details.partial) parts.push(element("p", "Its epochs are in history.csv; the page of so long a study has no room for all of them.", "detail"));
    const quoted = /^[\w.-]+$/.test(id) ? id : `'${id.replaceAll("'", `'\\''`)}'`;
    const files = data.details.files[id] ?? [];
    const commands = [...(row[state] === "complete" ? [data.details.reproduce] : []), ...(files.some((f) => /\.(safetensors|codebook)$/.test(f)) ? [data.details.export] : [])];
    if (commands.length) parts.push(element("h3", "Train it again, export it"), ...commands.map((command) => element("p", `${command} ${quoted}`, "code")));
    if (files.length) parts.push(element("h3", "Files"), ...files.map((file) => element("p", file, "code")));
    panel.replaceChildren(...parts.filter((part) => part.textContent || part.children.length || part === drawing?.[0]));
    if (!panel.open) panel.showModal();
    panel.scrollTop = 0;
    title.focus();
    drawing?.[1]();
  }

  function showNamed() {
    const row = panel && named();
    if (row) fillPanel(row);
    else if (panel?.open) panel.close();
  }

  if (panel) {
    panel.id = "panel";
    panel.setAttribute("aria-labelledby", "panel-h");
    document.body.append(panel);
    by("marked").firstElementChild.after(element("span"));
    panel.addEventListener("click", (event) => { if (event.target === panel) panel.close(); }); // the backdrop
    panel.addEventListener("close", () => { if (named()) history.replaceState(null, "", location.pathname + location.search); });
    window.addEventListener("hashchange", showNamed);
  }

  // ---- the table of trials -------------------------------------------------------------------------------------
  let most = 200; // rows shown
  const { columns, rows } = data.trials;
  const at = (key) => columns.findIndex((column) => column.key === key);
  const [state, baseline] = [at("state"), at("baseline")];
  const kind = (row) => (baseline >= 0 && row[baseline] ? "baseline" : row[state]);
  let order = { column: null, descending: false };
  const hiddenKinds = new Set();
  const limits = {}; // column → [place in the table, test that a value must pass]

  const formats = {}; // by digits: making one takes far longer than using it
  const words = new Intl.Collator("en", { numeric: true });

  function number(value, { digits, unit }) {
    if (value === null) return "–";
    if (!unit && value !== 0 && Math.abs(value) < 10 ** (1 - digits)) return String(Number(value.toPrecision(3)));
    formats[digits] ??= new Intl.NumberFormat("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return formats[digits].format(value);
  }

  function compare(a, b) {
    const [x, y] = [a[order.column], b[order.column]];
    const none = (v) => v === null || v === "";
    if (none(x) || none(y)) return none(x) - none(y); // missing values stay last in both directions
    const result = typeof x === "number" ? x - y : words.compare(x, y);
    return order.descending ? -result : result;
  }

  function allowed(row) {
    return !hiddenKinds.has(kind(row)) && Object.values(limits).every(([i, passes]) => row[i] !== null && passes(row[i]));
  }

  function visible() {
    const found = rows.filter(allowed);
    return order.column === null ? found : found.sort(compare);
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
    head.append(pick, ...(panel ? [linkTo(row[0], "details")] : []));
    tr.append(head, ...columns.slice(1).map((column, i) => cell(row[i + 1], column)));
    return tr;
  }

  function showOrder(th, direction) { // "" for none
    th.setAttribute("aria-sort", direction || "none");
    th.firstElementChild.lastElementChild.textContent = { ascending: " ↑", descending: " ↓" }[direction] ?? "";
  }

  // The tables that come with the page sort by what their cells say: the number that they begin with, or words.
  function sortable(table) {
    const body = table.tBodies[0];
    if (body.rows.length < 2) return;
    const heads = [...table.tHead.rows[0].cells];
    const said = (row, i) => row.cells[i].textContent.trim();
    const amount = (text) => Number.parseFloat(text.replaceAll(",", "").replace("−", "-"));
    heads.forEach((th, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...th.childNodes, document.createElement("span"));
      th.append(button);
      showOrder(th, "");
      const numbers = i > 0 && [...body.rows].every((row) => said(row, i) === "–" || !Number.isNaN(amount(said(row, i))));
      button.addEventListener("click", () => {
        const before = th.getAttribute("aria-sort");
        const direction = before === "none" ? (numbers ? "descending" : "ascending") : before === "descending" ? "ascending" : "descending";
        const sign = direction === "descending" ? -1 : 1;
        const order = (a, b) => {
          const [x, y] = [said(a, i), said(b, i)];
          if (x === "–" || y === "–") return (x === "–") - (y === "–");
          return sign * (numbers ? amount(x) - amount(y) : words.compare(x, y));
        };
        body.append(...[...body.rows].sort(order));
        for (const other of heads) showOrder(other, other === th ? direction : "");
      });
    });
  }

  function fill() {
    const found = visible();
    document.querySelector("#trial-table tbody").replaceChildren(...found.slice(0, most).map(line));
    by("shown").textContent = most < found.length ? `${most} of ${found.length} rows` : `${found.length} of ${rows.length} rows`;
    by("more").hidden = most >= found.length;
    by("more").textContent = 5 * most < found.length ? `Show ${5 * most} rows` : "Show all rows";
    document.querySelectorAll("#trial-table thead th").forEach((th, i) => {
      showOrder(th, order.column !== i ? "" : order.descending ? "descending" : "ascending");
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
    const left = rows.filter(allowed);
    kept = left.length === rows.length ? null : new Set(left.map((row) => row[0]));
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; catchUp(); });
  }

  // Not by Plotly's own selectedpoints, for which it draws the whole figure again.
  const known = new Set(rows.map((row) => row[0]));
  function fade(plot) {
    if (plot.layout.meta?.axes) return fadeLines(plot);
    const owners = new Map(); // what Plotly binds to a mark's element → the trial it stands for
    for (const points of plot.calcdata) {
      const ids = points[0]?.trace?.customdata;
      if (Array.isArray(ids)) points.forEach((point, i) => owners.set(point, ids[i]));
    }
    for (const mark of plot.querySelectorAll(".scatterlayer .point")) {
      const id = owners.get(mark.__data__);
      mark.classList.toggle("out", kept !== null && known.has(id) && !kept.has(id));
    }
  }

  // A ' in front of words that a spreadsheet would run as a formula, as in study/records/outputs.py.
  const formulaLike = /^\s*[=@+\-＝＋－＠]/, numberLike = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?$/;
  const harmless = (value) => (formulaLike.test(value) && !numberLike.test(value) ? `'${value}` : value);
  function download() {
    const quote = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const lines = [columns.map((column) => column.key), ...visible()].map((row) => row.map((v) => quote(harmless(String(v ?? "")))).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
    link.download = data.csv;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  for (const plot of plots) {
    const { frames, layout } = data.figures[plot.id];
    if (frames?.length) animation(plot, frames, layout.sliders[0]);
    if (layout.meta?.pick) menu(plot, layout.updatemenus[0], layout.meta.pick);
  }
  document.querySelectorAll("table.plain").forEach(sortable);
  unfoldTarget();
  paint(scheme());
  if (rows.length) {
    headings();
    filters();
    limit("val_accuracy", true);
    at("file_bytes") >= 0 ? limit("file_bytes", false) : limit("sparsity", true);
    fill();
    by("csv").addEventListener("click", download);
    by("more").addEventListener("click", () => { most *= 5; fill(); });
  }
  showNamed();
})();
