// The sessions: a list that a form filters, and the end of one.

import { ask, get, pathOf } from "./api.js";
import { confirm } from "./dialogs.js";
import { Table, el, row, setText } from "./dom.js";
import { bytes, counted, duration, number, words } from "./format.js";

const most = 100; // sessions are listed

const columns = [
  { name: "client", title: "Client" },
  { name: "listener", title: "Listener" },
  { name: "backend", title: "Backend" },
  { name: "phase", title: "Phase" },
  { name: "age", title: "Age" },
  { name: "idle", title: "Idle" },
  { name: "in", title: "In" },
  { name: "out", title: "Out" },
  { name: "act", title: "End", hidden: true },
];

const fields = [
  ["client", "Client", "Address or prefix"], ["listener", "Listener", "Name"], ["pool", "Pool", "Name"],
  ["backend", "Backend", "Name or address"], ["min_age", "At least as old as", "90s, 2h"],
  ["min_idle", "Idle for at least", "90s, 2h"],
];

// A Sessions is the view of the sessions. It is asked for when it is shown, and every few seconds then.
export class Sessions {
  title = "Sessions";
  every = 3000; // milliseconds

  constructor(model) {
    this.model = model;
    this.inputs = {};
    const form = el("form", { class: "filter", role: "search", "aria-label": "Filter sessions", novalidate: true });
    for (const [name, title, example] of fields) {
      const input = el("input", { id: `filter-${name}`, type: "text", placeholder: example, spellcheck: "false",
        autocapitalize: "off", autocomplete: "off" });
      this.inputs[name] = input;
      form.append(el("div", { class: "field" }, el("label", { for: input.id }, title), input));
    }
    form.append(el("div", { class: "buttons" }, el("button", { type: "submit", class: "primary" }, "Filter"),
      el("button", { type: "reset" }, "Clear")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      model.refresh();
    });
    form.addEventListener("reset", () => setTimeout(() => model.refresh()));
    this.count = el("p", { class: "count-line", role: "status" });
    this.failure = el("p", { class: "failure", role: "alert" });
    this.table = new Table({ caption: "Sessions, the oldest first", columns, make: (s) => new Row(this, s) });
    this.root = el("div", {}, form, this.failure, this.count, el("div", { class: "card" }, this.table.root));
  }

  async load() {
    const query = { limit: most };
    for (const name in this.inputs) query[name] = this.inputs[name].value.trim();
    try {
      const { sessions, total } = await get("/v1/sessions", query);
      setText(this.failure, "");
      setText(this.count, total > sessions.length
        ? `The ${number(sessions.length)} oldest of ${counted(total, "session")}. Filter to see others.`
        : counted(total, "session"));
      this.table.show(sessions, (s) => s.id);
    } catch (e) {
      if (!e.kind?.startsWith("/problems/invalid") && e.kind !== "/problems/bad-request") throw e;
      setText(this.failure, e.message);
    }
  }
}

class Row {
  constructor(view, s) {
    const { root, cells } = row(columns);
    this.root = root;
    this.cells = cells;
    this.model = view.model;
    this.via = el("span", { class: "note mono" });
    this.client = el("span", { class: "mono" });
    cells.client.append(this.client, this.via);
    this.backend = el("span");
    this.pool = el("span", { class: "note" });
    cells.backend.append(this.backend, this.pool);
    this.button = el("button", { type: "button", "aria-label": `End the session of ${s.client}`,
      on: { click: () => this.askEnd() } }, "End…");
    cells.act.append(this.button);
  }

  update(s) {
    this.session = s;
    setText(this.client, s.client);
    setText(this.via, s.via ? `via ${s.via}` : "");
    setText(this.cells.listener, s.listener);
    setText(this.backend, s.backend || "none yet");
    setText(this.pool, s.pool ? `pool ${s.pool}` : "");
    setText(this.cells.phase, words(s.phase));
    setText(this.cells.age, duration(s.age_seconds));
    setText(this.cells.idle, duration(s.idle_seconds));
    setText(this.cells.in, bytes(s.bytes_in));
    setText(this.cells.out, bytes(s.bytes_out));
    this.button.disabled = this.model.status.read_only;
  }

  askEnd() {
    const s = this.session;
    confirm({
      title: "End this session?",
      consequence: [
        `The connection of ${s.client} at listener ${s.listener} is reset at once` +
          (s.backend ? `, and so is the one to ${s.backend}.` : "."),
        "Whatever is under way in it is lost. The client may connect again.",
      ],
      verb: "End session",
      danger: true,
      act: async () => {
        await ask("DELETE", pathOf("v1", "sessions", s.id));
        this.model.refresh();
        return `The session of ${s.client} has ended`;
      },
    });
  }
}
