// The pools, and the backends of those that are open.

import { KeyedList, Table, el, row, setAttribute, setText } from "./dom.js";
import { bytesRate, counted, natural, number, rate } from "./format.js";
import { Spark } from "./series.js";
import { Badge, eligibility, hint, lasting, reason, role } from "./states.js";

// rows is how many backends of a pool are shown at once. There are buttons for the others, so that a pool of thousands
// costs no more than a small one.
const rows = 50;

// opened is up to how many backends a pool is open from the beginning, if there are no more than a few pools.
const opened = 20;
const few = 8;

const columns = [
  { name: "name", title: "Backend", sort: true },
  { name: "eligible", title: "Eligible", sort: true },
  { name: "verdict", title: "Verdict" },
  { name: "mode", title: "Mode" },
  { name: "breaker", title: "Breaker" },
  { name: "weight", title: "Weight", sort: true },
  { name: "sessions", title: "Sessions", sort: true },
  { name: "started", title: "New/s", sort: true },
  { name: "traffic", title: "In + out", sort: true },
  { name: "reason", title: "Last check" },
];

// A Pools is the list of all pools.
export class Pools {
  constructor(model, panel) {
    this.root = el("div", { class: "pools" });
    this.list = new KeyedList(this.root, (pool) => new Pool(model, panel, pool));
  }

  show(pools) {
    this.few = pools.length <= few;
    for (const pool of pools) pool.opensItself = this.few && pool.backends <= opened;
    this.list.show(pools, (pool) => pool.name);
  }

  // open returns the names of the pools that are open.
  open() {
    return [...this.list.rows.values()].filter((pool) => pool.open).map((pool) => pool.name);
  }

  // wanted returns the open pools that are on the screen, or close to it.
  wanted() {
    return this.open().filter((name) => this.list.rows.get(name).visible);
  }

  // showBackends shows new values of the backends of a pool.
  showBackends(name) {
    this.list.rows.get(name)?.showBackends();
  }
}

class Pool {
  constructor(model, panel, pool) {
    this.model = model;
    this.panel = panel;
    this.name = pool.name;
    this.open = pool.opensItself;
    this.visible = true;
    this.order = { name: "name", descending: false };
    this.first = 0;
    this.history = { sessions: new Spark(), started: new Spark(), both: new Spark() };

    this.toggle = el("button", { type: "button", class: "toggle", on: { click: () => this.setOpen(!this.open) } },
      el("span", { class: "chevron", "aria-hidden": "true" }), el("span", { class: "pool-name" }, pool.name));
    this.meter = el("span", { class: "note" });
    this.note = el("p", { class: "pool-note" });
    this.numbers = {};
    const numbers = el("dl", { class: "numbers" });
    for (const [name, title] of [["sessions", "Sessions"], ["started", "New/s"], ["both", "In + out"]]) {
      this.numbers[name] = el("span", { class: "value" });
      numbers.append(el("div", {}, el("dt", {}, title), el("dd", {}, this.history[name].root, this.numbers[name])));
    }
    this.badge = el("span", { class: "count" });
    this.body = el("div", { class: "pool-body" });
    this.root = el("article", { class: "card pool", id: `pool-${pool.name}` },
      el("header", {}, el("div", { class: "pool-title" }, el("h3", {}, this.toggle), this.badge, this.meter),
        numbers), this.note, this.body);
    this.build();
    this.setOpen(this.open);
    new IntersectionObserver((seen) => {
      this.visible = seen.at(-1).isIntersecting;
      if (this.visible && this.open) model.refresh();
    }, { rootMargin: "200px" }).observe(this.root);
  }

  // build makes what an open pool shows.
  build() {
    this.search = el("input", { type: "search", placeholder: "Name, address or state", spellcheck: "false",
      "aria-label": `Search the backends of ${this.name}`, on: { input: () => this.from(0) } });
    this.only = el("select", { "aria-label": `Which backends of ${this.name}`, on: { change: () => this.from(0) } },
      el("option", { value: "" }, "All backends"), el("option", { value: "no" }, "Only those not eligible"));
    this.range = el("span", { class: "range", role: "status" });
    this.back = el("button", { type: "button", on: { click: () => this.from(this.first - rows) } }, "Previous");
    this.next = el("button", { type: "button", on: { click: () => this.from(this.first + rows) } }, "Next");
    this.bar = el("div", { class: "bar" }, this.search, this.only, this.range, this.back, this.next);
    this.table = new Table({
      caption: `Backends of ${this.name}`, columns, make: (b) => new Row(this, b), onSort: (name) => this.sort(name),
    });
    this.table.sorted("name", false);
    this.empty = el("p", { class: "empty" });
    this.body.append(this.bar, this.table.root, this.empty);
  }

  setOpen(open) {
    this.open = open;
    setAttribute(this.toggle, "aria-expanded", String(open));
    this.body.hidden = !open;
    if (open) this.model.refresh();
  }

  update(pool) {
    const all = pool.eligible === pool.backends;
    setText(this.badge, `${number(pool.eligible)} of ${number(pool.backends)} eligible`);
    setAttribute(this.badge, "class", `count ${all ? "good" : pool.eligible === 0 ? "bad" : "some"}`);
    const check = pool.check ? `checks: ${pool.check}` : "no checks";
    setText(this.meter, [pool.algorithm, check, pool.discovery && `discovery: ${pool.discovery}`]
      .filter(Boolean).join(" · "));
    const notes = [];
    if (pool.waiting > 0) notes.push(`${counted(pool.waiting, "session")} waiting for a backend`);
    if (pool.falls_back) notes.push("no replica is eligible, so the primary serves");
    if (pool.rivalries > 0) notes.push(`two backends claimed to be the primary ${counted(pool.rivalries, "time")}`);
    setText(this.note, notes.join(" · "));
    this.note.hidden = notes.length === 0;
    const h = this.model.poolHistories.of(pool.name);
    setText(this.numbers.sessions, number(pool.sessions));
    setText(this.numbers.started, rate(h.started.last));
    setText(this.numbers.both, bytesRate(h.both.last));
    for (const name in this.history) this.history[name].draw(h[name]);
    this.bar.hidden = pool.backends <= opened;
  }

  sort(name) {
    const descending = this.order.name === name ? !this.order.descending : name !== "name" && name !== "eligible";
    this.order = { name, descending };
    this.table.sorted(name, descending);
    this.from(0);
  }

  // from shows the backends from one number on.
  from(first) {
    this.first = first;
    this.showBackends();
  }

  showBackends() {
    if (!this.open) return;
    const wanted = this.search.value.trim().toLowerCase();
    const all = this.model.backends(this.name).filter((b) => (this.only.value === "" || !b.eligible) &&
      (wanted === "" || searched(b).includes(wanted)));
    this.sorted(all);
    this.first = Math.max(0, Math.min(this.first, Math.floor((all.length - 1) / rows) * rows));
    const shown = all.slice(this.first, this.first + rows);
    setText(this.range, all.length > rows
      ? `${number(this.first + 1)}–${number(this.first + shown.length)} of ${number(all.length)}`
      : counted(all.length, "backend"));
    this.back.disabled = this.first === 0;
    this.next.disabled = this.first + rows >= all.length;
    this.back.hidden = this.next.hidden = all.length <= rows;
    this.table.show(shown, (b) => b.name);
    const none = wanted || this.only.value ? "No backend is like that." : "No backends.";
    setText(this.empty, shown.length > 0 ? "" : none);
  }

  sorted(all) {
    const { name, descending } = this.order;
    const h = (b) => this.model.histories.of(`${b.pool}\n${b.name}`);
    const key = {
      eligible: (b) => (b.eligible ? 1 : 0), weight: (b) => b.weight, sessions: (b) => b.sessions,
      started: (b) => h(b).started.last ?? 0, traffic: (b) => h(b).both.last ?? 0,
    }[name];
    const sign = descending ? -1 : 1;
    if (!key) return void all.sort((a, b) => sign * natural(a.name, b.name));
    const keys = new Map(all.map((b) => [b, key(b)]));
    all.sort((a, b) => sign * (keys.get(a) - keys.get(b)) || natural(a.name, b.name));
  }
}

function searched(b) {
  return [b.name, b.address, b.verdict, b.mode, `breaker ${b.breaker}`, role(b), b.zone, b.reason].join(" ")
    .toLowerCase();
}

// A Row is the row of one backend.
class Row {
  constructor(pool, b) {
    this.model = pool.model;
    const { root, cells } = row(columns);
    this.root = root;
    this.cells = cells;
    this.current = b;
    this.role = el("span", { class: "chip" });
    this.button = el("button", { type: "button", class: "link", on: { click: () => pool.panel.show(this.current) } },
      b.name);
    this.address = el("span", { class: "note mono" });
    cells.name.append(this.button, " ", this.role, " ", this.address);
    this.badges = {};
    for (const kind of ["eligible", "verdict", "mode", "breaker"]) {
      this.badges[kind] = new Badge(kind);
      cells[kind].append(this.badges[kind].root);
    }
    this.hint = el("span", { class: "note" });
    this.lasting = el("span", { class: "note" });
    cells.eligible.append(this.hint);
    cells.verdict.append(this.lasting);
    this.sparks = {};
    this.values = {};
    for (const [cell, name] of [["sessions", "sessions"], ["started", "started"], ["traffic", "both"]]) {
      this.values[name] = el("span", { class: "value" });
      this.sparks[name] = new Spark();
      cells[cell].append(this.values[name], this.sparks[name].root);
    }
    this.reason = el("span", { class: "clipped" });
    cells.reason.append(this.reason);
  }

  update(b) {
    this.current = b;
    setText(this.address, b.address === b.name ? "" : b.address);
    setText(this.role, role(b));
    this.badges.eligible.show(eligibility(b));
    this.badges.verdict.show(b.verdict);
    this.badges.mode.show(b.mode);
    this.badges.breaker.show(b.breaker);
    setText(this.hint, hint(b));
    setText(this.lasting, lasting(b));
    setText(this.cells.weight, number(b.weight));
    const h = this.model.histories.of(`${b.pool}\n${b.name}`);
    setText(this.values.sessions, b.max_sessions > 0 ? `${number(b.sessions)}/${number(b.max_sessions)}`
      : number(b.sessions));
    setText(this.values.started, rate(h.started.last));
    setText(this.values.both, bytesRate(h.both.last));
    for (const name in this.sparks) this.sparks[name].draw(h[name]);
    setText(this.reason, reason(b));
    setAttribute(this.reason, "title", b.reason.length > 40 ? b.reason : null);
  }
}
