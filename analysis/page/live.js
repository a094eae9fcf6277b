"use strict";
// In the live page alone: looks for a newer page, loads it, and puts back what the reader had chosen. It reads and
// presses the page's own controls, as a reader does, and so need not know the other script.
(() => {
  const EVERY = 3000; // ms between two looks
  const AWAY = 30000; // ms between two looks for a server that did not answer
  const QUIET = 1500; // ms without pointer or key before the page may be exchanged
  const MOST_NEW = 100; // values that a slider may have got since the last page
  const STORAGE = `live ${location.pathname}`; // of several studies each has its own
  const version = document.querySelector("meta[name=version]").content;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);

  // ---- what the reader chose -----------------------------------------------------------------------------------
  const ticks = (control) => control.type === "checkbox" || control.type === "radio";
  const controls = () => all("main input, main select").map((control) => {
    const place = control.closest("[id]")?.id; // its own, or that of what it lies in
    const name = [place, control.name, control.ariaLabel, ticks(control) ? control.value : ""].join(" ");
    return { control, name, field: ticks(control) ? "checked" : "value" };
  });
  const initial = new Map(); // how the page came, before a reader's choice
  const heads = () => all("thead th[aria-sort]").map((head) => [`${head.closest("section").id} ${title(head)}`, head]);
  const title = (head) => head.firstElementChild.firstChild.textContent; // without its arrow

  const folds = () => all("details.fold").map((fold) => [`${fold.closest("section").id} ${fold.querySelector("h2, h3").textContent}`, fold]);

  function topmost() { // what stands at the top of the window: content above it may grow
    const element = all("section[id], .plot[id]").find((e) => e.getBoundingClientRect().bottom > 0);
    return element && window.scrollY > 0 ? [element.id, element.getBoundingClientRect().top] : null;
  }

  function focused() {
    const element = document.activeElement;
    const section = element?.closest("section[id]")?.id;
    if (element?.id) return `#${CSS.escape(element.id)}`;
    return section && element.dataset.trial ? `#${section} [data-trial="${CSS.escape(element.dataset.trial)}"].pick` : null;
  }

  function save() {
    if (!by("data")) return; // no report: what was chosen in the last one still counts
    sessionStorage.setItem(STORAGE, JSON.stringify({
      top: topmost(),
      focus: focused(),
      theme: document.documentElement.dataset.theme,
      marked: by("marked").hidden ? null : by("marked").firstElementChild.textContent.split(" · ")[0],
      sort: heads().filter(([, head]) => head.ariaSort !== "none").map(([name, head]) => [name, head.ariaSort]),
      folded: folds().filter(([, fold]) => !fold.open).map(([name]) => name),
      everything: all("#trial-table tbody tr").length > 200 && by("more").hidden,
      aside: all(".scroll").map((e) => [e.closest("section").id, e.scrollLeft]),
      chosen: controls().filter(({ control, field, name }) => control[field] !== initial.get(name))
        .map(({ control, field, name }) => [name, control[field], control.ariaValueText]),
    }));
  }

  function press(control, field, value) {
    control[field] = value;
    for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind, { bubbles: true }));
  }

  function restore(kept) {
    if (kept.theme !== document.documentElement.dataset.theme) by("theme").click();
    for (const { control, field, name } of controls()) {
      const was = kept.chosen.find(([other]) => other === name);
      if (!was) continue;
      press(control, field, was[1]);
      // A slider over the values of all trials may have got more of them before this one.
      for (let more = 1; was[2] && control.ariaValueText !== was[2] && more <= MOST_NEW; more++) press(control, field, Number(was[1]) + more);
      if (control.ariaValueText !== was[2]) press(control, field, was[1]);
    }
    for (const [name, direction] of kept.sort ?? []) {
      const head = heads().find(([other]) => other === name)?.[1];
      for (let tries = 0; head && tries < 2 && head.ariaSort !== direction; tries++) head.firstElementChild.click();
    }
    for (const [name, fold] of folds()) fold.open = !(kept.folded ?? []).includes(name);
    if (kept.everything) by("more").click();
    if (kept.marked !== null) {
      const pick = document.createElement("button"); // the trial's own may lie on a part of the table not shown
      pick.className = "pick";
      pick.dataset.trial = kept.marked;
      document.body.append(pick);
      pick.click();
      pick.remove();
    }
    for (const [section, left] of kept.aside) { const e = by(section)?.querySelector(".scroll"); if (e) e.scrollLeft = left; }
    if (kept.focus) document.querySelector(kept.focus)?.focus({ preventScroll: true });
    const element = kept.top && by(kept.top[0]);
    if (element) window.scrollBy({ top: element.getBoundingClientRect().top - kept.top[1], behavior: "instant" });
  }

  // ---- looking for a newer page --------------------------------------------------------------------------------
  const badge = document.createElement("span");
  let touched = 0;
  for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "touchmove"]) {
    window.addEventListener(kind, () => { touched = performance.now(); }, { passive: true });
  }

  async function look() {
    let wait = EVERY;
    try {
      const answer = await fetch(location.pathname, { method: "HEAD", cache: "no-store" });
      badge.textContent = " · live";
      const newer = answer.ok && answer.headers.get("ETag") !== `"${version}"`;
      while (newer && performance.now() - touched < QUIET) await new Promise((go) => setTimeout(go, QUIET));
      if (newer) { location.reload(); return; }
    } catch {
      badge.textContent = " · no longer live";
      wait = AWAY;
    }
    setTimeout(look, wait);
  }

  document.addEventListener("DOMContentLoaded", () => {
    history.scrollRestoration = "manual";
    badge.textContent = " · live";
    document.querySelector(".counts")?.append(badge);
    const home = document.querySelector("meta[name=home]");
    if (home && document.querySelector(".bar nav")) {
      const link = document.createElement("a");
      link.href = home.content;
      link.textContent = "All studies";
      document.querySelector(".bar nav").prepend(link);
    }
    for (const { control, field, name } of controls()) initial.set(name, control[field]);
    const kept = sessionStorage.getItem(STORAGE);
    if (kept && by("data")) restore(JSON.parse(kept));
    window.addEventListener("pagehide", save);
    setTimeout(look, EVERY);
  });
})();
