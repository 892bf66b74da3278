// The fleet: the connection to etcd, and the nodes.

import { get } from "./api.js";
import { Table, el, row, setAttribute, setText } from "./dom.js";
import { ago, counted, number, rate } from "./format.js";
import { Badge } from "./states.js";

const columns = [
  { name: "node", title: "Node" },
  { name: "state", title: "State" },
  { name: "since", title: "Since" },
  { name: "config", title: "Configuration" },
  { name: "sessions", title: "Sessions" },
  { name: "rate", title: "New/s" },
  { name: "version", title: "Version" },
  { name: "host", title: "Host" },
  { name: "note", title: "Note" },
];

// A Fleet is the view of the nodes, asked for every few seconds while it is shown. Only a node of a fleet has it.
export class Fleet {
  title = "Fleet";
  every = 2000; // milliseconds

  constructor() {
    this.link = el("p", { class: "count-line" });
    this.pending = el("p", { class: "count-line" });
    this.table = new Table({ caption: "Nodes of the fleet", columns, make: () => new Row() });
    this.card = el("div", { class: "card fleet" }, this.table.root);
    this.root = el("div", {}, this.link, this.pending, this.card);
  }

  async load() {
    let fleet;
    try {
      fleet = await get("/v1/fleet");
    } catch (e) {
      if (e.kind !== "/problems/no-fleet") throw e; // the daemon was started again without one
      setText(this.link, e.message);
      this.card.hidden = this.pending.hidden = true;
      return;
    }
    this.card.hidden = false;
    setText(this.link, `Fleet ${fleet.name}, node ${fleet.node}: ${link(fleet.link)}`);
    setAttribute(this.link, "class", fleet.link.connected && !fleet.link.error ? "count-line" : "count-line bad");
    setText(this.pending, `${counted(fleet.pending, "shared record")} not in etcd yet.`);
    this.pending.hidden = fleet.pending === 0;
    this.table.show(fleet.nodes, (n) => n.name);
  }
}

// link describes the connection to etcd.
function link(l) {
  if (!l.since) return "not connected to etcd yet.";
  const at = `connected to etcd at ${l.endpoint}`;
  if (l.connected && l.error) return `${at}, which refuses what this node writes: ${l.error}`;
  if (l.connected) return `${at} for ${ago(l.since)}.`;
  return `no connection to etcd for ${ago(l.since)}: ${l.error}. The nodes are listed as they were.`;
}

// stateOf returns the state of a node in one word.
function stateOf(n) {
  if (n.alone) return "alone";
  if (n.state === "serving") return n.ready ? "ready" : "not_ready";
  return n.state;
}

// noteOf returns what is remarkable about a node.
function noteOf(n) {
  const notes = [];
  if (n.this) notes.push("this node");
  if (n.state === "gone") notes.push("its lease has ended: it has died, or has no connection to etcd");
  else if (n.state === "left") notes.push("it has ended");
  else if (n.alone) notes.push(n.alone);
  else if (n.state === "serving" && n.reason) notes.push(n.reason);
  return notes.join("; ");
}

class Row {
  constructor() {
    const { root, cells } = row(columns);
    this.root = root;
    this.cells = cells;
    this.name = el("strong");
    cells.node.append(this.name);
    this.state = new Badge("node");
    cells.state.append(this.state.root);
  }

  update(n) {
    const there = n.state !== "gone" && n.state !== "left";
    setText(this.name, n.name);
    this.state.show(stateOf(n));
    setText(this.cells.since, n.since ? `${ago(n.since)} ago` : "");
    setText(this.cells.config, !there || !n.config ? "" : n.other_config ? `other: ${n.config}` : "same");
    setAttribute(this.cells.config, "class", n.other_config ? "config bad" : "config");
    setText(this.cells.sessions, there ? number(n.sessions + n.flows) : "");
    setText(this.cells.rate, there ? rate(n.rate_per_second) : "");
    setText(this.cells.version, n.version.split(" ")[0]);
    setText(this.cells.host, n.host);
    setText(this.cells.note, noteOf(n));
  }
}
