// What runs, and where it differs from the file.

import { KeyedList, Table, el, row, setAttribute, setText } from "./dom.js";
import { ago, counted, date, duration, number } from "./format.js";

const differenceColumns = [
  { name: "backend", title: "Backend" }, { name: "pool", title: "Pool" }, { name: "what", title: "What" },
  { name: "file", title: "In the file" }, { name: "running", title: "Running" },
  { name: "by", title: "Set by" }, // in a fleet only
];

const certificateColumns = [
  { name: "name", title: "Certificate" }, { name: "of", title: "Of" }, { name: "until", title: "Expires" },
  { name: "left", title: "Left" },
];

// A Configuration is the view of the file, the reloads, the differences and the certificates.
export class Configuration {
  title = "Configuration";

  constructor() {
    this.facts = el("dl", { class: "facts-list card" });
    this.values = {};
    for (const name of ["File", "Last reload", "Reloads", "State file", "Process", "Log level", "Loops"]) {
      this.values[name] = el("dd");
      this.facts.append(el("div", {}, el("dt", {}, name), this.values[name]));
    }
    this.differences = new Table({ caption: "What was set at run time", columns: differenceColumns,
      make: () => plainRow(differenceColumns) });
    this.certificates = new Table({ caption: "Certificates", columns: certificateColumns,
      make: () => plainRow(certificateColumns) });
    this.noDifferences = el("p", { class: "empty" });
    this.noCertificates = el("p", { class: "empty" });
    this.warnings = el("ul", { class: "warnings" });
    this.warningList = new KeyedList(this.warnings, (text) => ({ root: el("li", {}, text), update() {} }));
    this.warningCard = el("div", {}, el("h2", {}, "Warnings"), el("div", { class: "card" }, this.warnings));
    this.root = el("div", {}, this.facts, el("h2", {}, "Set at run time"),
      el("div", { class: "card" }, this.differences.root, this.noDifferences), el("h2", {}, "Certificates"),
      el("div", { class: "card" }, this.certificates.root, this.noCertificates), this.warningCard);
  }

  update(status) {
    const { reloads: r, loops } = status;
    const values = {
      File: status.config,
      "Last reload": !r.last ? "none since the start" : r.error ? `failed ${ago(r.last)} ago: ${r.error}`
        : `done ${ago(r.last)} ago, took ${duration(r.took_seconds || 0)}`,
      Reloads: `${number(r.done)} done, ${number(r.failed)} failed`,
      "State file": status.state_error ? `${status.state_file}: ${status.state_error}`
        : status.state_file || "none: changes at run time end with the process",
      Process: String(status.pid), "Log level": status.log_level,
      Loops: `${loops.length}, with ${loops.map((l) => number(l.sessions)).join(", ")} sessions`,
    };
    for (const name in values) setText(this.values[name], values[name]);
    setAttribute(this.values["Last reload"], "class", r.error ? "bad" : null);
    setAttribute(this.differences.root, "class", status.fleet ? null : "no-fleet");
    const differences = status.differences.map((d) => ({ ...d, by: d.fleet ? "the fleet" : "this node" }));
    this.differences.show(differences, (d) => `${d.pool}\n${d.backend}\n${d.what}`);
    this.differences.root.hidden = status.differences.length === 0;
    setText(this.noDifferences, status.differences.length ? "" : "Nothing: what runs is what the file says.");
    const certificates = status.certificates.map((c) => ({
      name: c.name, of: c.listener ? `listener ${c.listener}` : `pool ${c.pool}`, until: date(c.not_after),
      left: left(c),
    }));
    this.certificates.show(certificates, (c) => `${c.of}\n${c.name}`);
    this.certificates.root.hidden = certificates.length === 0;
    setText(this.noCertificates, certificates.length ? "" : "None: no listener or pool shows a certificate.");
    const warnings = [...new Set([...status.needs_restart.map((key) => `${key} needs a restart`), ...status.warnings])];
    this.warningList.show(warnings, (text) => text);
    this.warningCard.hidden = warnings.length === 0;
  }
}

function left(c) {
  const days = Math.floor((Date.parse(c.not_after) - Date.now()) / 86_400_000);
  return days < 0 ? "expired" : counted(days, "day");
}

// plainRow is a row whose items have the texts of the columns.
function plainRow(columns) {
  const { root, cells } = row(columns);
  return {
    root,
    update(item) {
      for (const name in cells) setText(cells[name], item[name] || "none");
    },
  };
}
