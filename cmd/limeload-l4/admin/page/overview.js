// The overview: what needs attention, the totals, the listeners, and the pools.

import { KeyedList, Table, el, row, setAttribute, setText } from "./dom.js";
import { ago, bytesRate, counted, date, number, rate, since, sum, words } from "./format.js";
import { Pools } from "./pools.js";
import { Spark } from "./series.js";

// soon is how many days before its end a certificate needs attention.
const soon = 14;

const columns = [
  { name: "name", title: "Listener" },
  { name: "address", title: "Address" },
  { name: "pool", title: "Sends to" },
  { name: "sessions", title: "Sessions" },
  { name: "started", title: "New/s" },
  { name: "in", title: "In" },
  { name: "out", title: "Out" },
  { name: "refused", title: "Refused" },
];

const tiles = [
  ["sessions", "Sessions", number], ["started", "New sessions/s", rate], ["in", "From clients", bytesRate],
  ["out", "To clients", bytesRate], ["refused", "Refused/s", rate],
];

// An Overview is the first view.
export class Overview {
  title = "Overview";

  constructor(model, panel) {
    this.model = model;
    this.notices = el("ul", { class: "notices", role: "status" });
    this.noticeList = new KeyedList(this.notices, makeNotice);
    this.tiles = {};
    const totals = el("dl", { class: "tiles" });
    for (const [name, title] of tiles) {
      const value = el("span", { class: "value" }), spark = new Spark(160, 34);
      this.tiles[name] = { value, spark };
      totals.append(el("div", { class: "card tile" }, el("dt", {}, title), el("dd", {}, value, spark.root)));
    }
    this.listeners = new Table({ caption: "Listeners", columns, make: () => new Row(model) });
    this.pools = new Pools(model, panel);
    this.root = el("div", {}, this.notices, totals, el("h2", {}, "Listeners"),
      el("div", { class: "card listeners" }, this.listeners.root), el("h2", {}, "Pools"), this.pools.root);
  }

  update(status) {
    this.noticeList.show(notices(status), (n) => n.text);
    this.notices.hidden = this.notices.childElementCount === 0;
    for (const [name, , form] of tiles) {
      const h = this.model.totals[name];
      setText(this.tiles[name].value, h.last === null ? "–" : form(h.last));
      this.tiles[name].spark.draw(h);
    }
    this.listeners.show(status.listeners, (l) => `${l.protocol} ${l.name}`);
    this.pools.show(status.pools);
  }
}

function makeNotice({ look, text }) {
  const sign = { bad: "✕", warn: "▲", idle: "●" }[look];
  const root = el("li", { class: `notice ${look}` }, el("span", { class: "sign", "aria-hidden": "true" }, sign), text);
  return { root, update() {} };
}

// notices returns what somebody should look at, the worst first.
export function notices(status) {
  const bad = [], warn = [], idle = [];
  for (const pool of status.pools) {
    if (pool.tries_all) bad.push(`Pool ${pool.name}: no backend is healthy, so all are tried.`);
    else if (pool.eligible === 0) {
      bad.push(pool.hold_max > 0 ? `Pool ${pool.name}: no backend is eligible. New clients wait, and are then refused.`
        : `Pool ${pool.name}: no backend is eligible. New clients are refused.`);
    }
  }
  if (status.reloads.error) bad.push(`The last reload failed: ${status.reloads.error}`);
  if (status.state_error) bad.push(`The state file has trouble: ${status.state_error}`);
  for (const c of status.certificates) {
    const of = c.listener ? `listener ${c.listener}` : `pool ${c.pool}`;
    const days = Math.floor((Date.parse(c.not_after) - Date.now()) / 86_400_000);
    if (days < 0) bad.push(`The certificate ${c.name} of ${of} has expired on ${date(c.not_after)}.`);
    else if (days < soon) warn.push(`The certificate ${c.name} of ${of} expires on ${date(c.not_after)}.`);
  }
  if (status.state === "draining") warn.push("The daemon is shutting down: it takes no new sessions.");
  if (status.fleet && !status.fleet.connected) {
    warn.push(`No connection to the fleet's etcd, so this node goes on with what it knew: ${status.fleet.error}`);
  } else if (status.fleet?.error) warn.push(`The fleet's etcd refuses what this node writes: ${status.fleet.error}`);
  if (status.fleet?.other_config) warn.push("Most nodes of the fleet run another configuration than this one.");
  if (status.needs_restart.length) warn.push(`Need a restart: ${status.needs_restart.join(", ")}.`);
  if (status.read_only) idle.push("This address can only be read: it is TCP without a token.");
  const of = (look) => (text) => ({ look, text });
  return [...bad.map(of("bad")), ...warn.map(of("warn")), ...idle.map(of("idle"))];
}

class Row {
  constructor(model) {
    this.model = model;
    const { root, cells } = row(columns);
    this.root = root;
    this.cells = cells;
    this.name = el("strong");
    this.protocol = el("span", { class: "chip" });
    cells.name.append(this.name, " ", this.protocol);
    this.values = {};
    this.sparks = {};
    for (const name of ["sessions", "started", "in", "out"]) {
      this.values[name] = el("span", { class: "value" });
      this.sparks[name] = new Spark();
      cells[name].append(this.values[name], this.sparks[name].root);
    }
    this.refused = el("span", { class: "value" });
    this.reasons = el("span", { class: "note" });
    cells.refused.append(this.refused, this.reasons);
  }

  update(l) {
    setText(this.name, l.name);
    setText(this.protocol, l.protocol);
    setText(this.cells.address, l.addresses.length > 2 ? `${l.addresses[0]} and ${l.addresses.length - 1} more`
      : l.addresses.join(", "));
    setText(this.cells.pool, l.pools.join(", "));
    const h = this.model.listenerHistories.of(`${l.protocol} ${l.name}`);
    setText(this.values.sessions, number(l.sessions));
    setText(this.values.started, rate(h.started.last));
    setText(this.values.in, bytesRate(h.in.last));
    setText(this.values.out, bytesRate(h.out.last));
    for (const name in this.sparks) this.sparks[name].draw(h[name]);
    const refused = sum(l.refused), dropped = sum(l.dropped);
    const speed = h.refused.last > 0 ? ` (${rate(h.refused.last)}/s)` : "";
    setText(this.refused, number(refused) + speed);
    setAttribute(this.refused, "class", h.refused.last > 0 ? "value bad" : "value");
    const reasons = Object.entries(l.refused).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1])
      .map(([name, n]) => `${words(name)} ${number(n)}`);
    if (dropped > 0) reasons.push(`${counted(dropped, "datagram")} dropped`);
    setText(this.reasons, reasons.join(", "));
  }
}

// reload describes the last reload in a few words.
export function reload(r) {
  if (!r.last) return "none";
  return r.error ? `failed ${ago(r.last)} ago` : `done ${ago(r.last)} ago`;
}

// uptime returns for how long a daemon has run, in seconds.
export const uptime = (status) => since(status.started);
