// The heaviest clients.

import { get } from "./api.js";
import { Table, el, row, setText } from "./dom.js";
import { ago, bytes, number, rate } from "./format.js";

const columns = [
  { name: "client", title: "Client" },
  { name: "listener", title: "Listener" },
  { name: "rate", title: "New/s" },
  { name: "sessions", title: "Sessions" },
  { name: "in", title: "In" },
  { name: "out", title: "Out" },
  { name: "refused", title: "Refused" },
  { name: "seen", title: "Seen" },
];

// A Clients is the view of the heaviest clients, asked for every few seconds while it is shown.
export class Clients {
  title = "Clients";
  every = 3000; // milliseconds

  constructor(model) {
    this.order = el("select", { id: "clients-by", on: { change: () => model.refresh() } },
      el("option", { value: "rate" }, "new sessions in a second"), el("option", { value: "sessions" }, "sessions"),
      el("option", { value: "bytes" }, "bytes"));
    this.about = el("p", { class: "count-line" });
    this.table = new Table({ caption: "Clients, the heaviest first", columns, make: () => new Row() });
    this.card = el("div", { class: "card" }, this.table.root);
    this.root = el("div", {}, el("div", { class: "filter" }, el("div", { class: "field" },
      el("label", { for: "clients-by" }, "The heaviest by"), this.order)), this.about, this.card);
  }

  async load() {
    const { clients, tables } = await get("/v1/clients", { sort: this.order.value, limit: 50 });
    const untracked = tables.filter((t) => !t.tracked).map((t) => t.listener);
    const all = untracked.length === tables.length;
    setText(this.about, all ? "No listener tracks its clients. A listener with client_sessions or client_rate does."
      : untracked.length ? `Not tracked, without a limit on clients: ${[...new Set(untracked)].join(", ")}.` : "");
    this.card.hidden = clients.length === 0;
    if (!all && clients.length === 0) setText(this.about, "No clients now.");
    this.table.show(clients, (c) => `${c.protocol} ${c.listener}\n${c.client}`);
  }
}

class Row {
  constructor() {
    const { root, cells } = row(columns);
    this.root = root;
    this.cells = cells;
    this.client = el("span", { class: "mono" });
    cells.client.append(this.client);
  }

  update(c) {
    setText(this.client, c.client.replace(/\/(32|128)$/, ""));
    setText(this.cells.listener, c.listener);
    setText(this.cells.rate, rate(c.rate_per_second));
    setText(this.cells.sessions, number(c.sessions));
    setText(this.cells.in, bytes(c.bytes_in));
    setText(this.cells.out, bytes(c.bytes_out));
    setText(this.cells.refused, number(c.refused));
    setText(this.cells.seen, `${ago(c.seen)} ago`);
  }
}
