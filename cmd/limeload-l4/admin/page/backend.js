// The panel of one backend: everything that is known of it, and the controls.

import { ask, pathOf } from "./api.js";
import { confirm, open } from "./dialogs.js";
import { el, setText } from "./dom.js";
import { ago, bytes, bytesRate, counted, duration, number, rate, words } from "./format.js";
import { Spark } from "./series.js";
import { Badge, draining, eligibility, hint, lasting, reason, role, whyNot } from "./states.js";

const path = (b) => pathOf("v1", "pools", b.pool, "backends", b.name);

// A Panel is the dialog of one backend. There is at most one.
export class Panel {
  // model has backend(pool, name), pool(name), backends(pool), histories, status and refresh().
  constructor(model) {
    this.model = model;
    this.open = null;
  }

  show(b) {
    if (this.open) this.open.dialog.close();
    const panel = this.open = new OpenPanel(this.model, b);
    panel.dialog.addEventListener("close", () => {
      if (this.open === panel) this.open = null;
    });
    panel.update();
  }

  // pool is the pool of the backend that is shown; null for none.
  get pool() {
    return this.open ? this.open.key.pool : null;
  }

  update() {
    if (this.open) this.open.update();
  }
}

class OpenPanel {
  constructor(model, b) {
    this.model = model;
    this.key = { pool: b.pool, name: b.name };
    const heading = el("h2", {}, b.name);
    this.address = el("p", { class: "where" });
    this.gone = el("p", { class: "failure", role: "alert" });
    this.badges = {};
    this.notes = {};
    const states = el("dl", { class: "states" });
    for (const kind of ["eligible", "verdict", "mode", "breaker"]) {
      this.badges[kind] = new Badge(kind);
      this.notes[kind] = el("span", { class: "note" });
      states.append(el("div", {}, el("dt", {}, kind), el("dd", {}, this.badges[kind].root, " ", this.notes[kind])));
    }
    this.progress = el("progress", { "aria-label": "Sessions that have left" });
    this.drain = el("p", { class: "drain" });
    this.charts = {};
    const charts = el("div", { class: "charts" });
    for (const [name, title] of [["sessions", "Sessions"], ["started", "New/s"], ["in", "In"], ["out", "Out"]]) {
      const value = el("strong"), spark = new Spark(150, 36);
      this.charts[name] = { value, spark };
      charts.append(el("div", {}, el("span", {}, title), value, spark.root));
    }
    this.facts = el("dl", { class: "facts-list" });
    this.shownFacts = new Map();
    const close = el("button", { type: "button", class: "close", "aria-label": "Close" }, "✕");
    this.dialog = el("dialog", { class: "panel" },
      el("header", {}, el("div", {}, heading, this.address), close),
      this.gone, states, el("div", { class: "draining" }, this.drain, this.progress), this.controls(), charts,
      el("h3", {}, "Details"), this.facts);
    close.addEventListener("click", () => this.dialog.close());
    open(this.dialog, heading);
  }

  controls() {
    const button = (title, act) => el("button", { type: "button", on: { click: () => act.call(this, this.backend()) } },
      title);
    this.buttons = {
      drain: button("Drain…", this.askDrain), maintenance: button("Maintenance…", this.askMaintenance),
      ready: button("Ready…", this.askReady), weight: button("Weight…", this.askWeight),
    };
    this.why = el("p", { class: "note" });
    return el("div", { class: "controls" }, ...Object.values(this.buttons), this.why);
  }

  backend() {
    return this.model.backend(this.key.pool, this.key.name);
  }

  update() {
    const b = this.backend();
    setText(this.gone, b ? "" : "This backend is no longer in the pool.");
    if (!b) {
      for (const button of Object.values(this.buttons)) button.disabled = true;
      return;
    }
    setText(this.address, `Pool ${b.pool} · ${b.address}`);
    this.badges.eligible.show(eligibility(b));
    this.badges.verdict.show(b.verdict);
    this.badges.mode.show(b.mode);
    this.badges.breaker.show(b.breaker);
    setText(this.notes.eligible, b.eligible ? hint(b) : whyNot(b));
    setText(this.notes.verdict, [lasting(b), reason(b)].filter(Boolean).join(": "));
    setText(this.notes.breaker, b.breaker_openings > 0 ? `opened ${counted(b.breaker_openings, "time")}` : "");
    setText(this.drain, b.drain ? `Draining: ${draining(b.drain)}` : "");
    this.progress.hidden = !b.drain;
    if (b.drain) {
      this.progress.max = Math.max(1, b.drain.sessions_at_start);
      this.progress.value = Math.max(0, b.drain.sessions_at_start - b.drain.sessions_left);
    }
    this.allow(b);
    this.draw(b);
    this.fill(b);
  }

  // allow disables the controls that change nothing, or that may not be used.
  allow(b) {
    const { read_only: readOnly } = this.model.status;
    this.buttons.drain.disabled = readOnly || b.mode === "drain" && !!b.drain;
    this.buttons.maintenance.disabled = readOnly || b.mode === "maintenance";
    this.buttons.ready.disabled = readOnly || b.mode === "ready";
    this.buttons.weight.disabled = readOnly;
    setText(this.why, readOnly ? "This address can only be read: it is TCP without a token." : "");
  }

  draw(b) {
    const h = this.model.histories.of(`${b.pool}\n${b.name}`);
    for (const name of ["sessions", "started", "in", "out"]) {
      const value = h[name].last;
      const form = name === "sessions" ? number : name === "started" ? rate : bytesRate;
      setText(this.charts[name].value, value === null ? "–" : form(value));
      this.charts[name].spark.draw(h[name]);
    }
  }

  fill(b) {
    const facts = {
      Weight: number(b.weight), Tier: b.tier > 0 ? number(b.tier) : "", Zone: b.zone, Role: role(b),
      "Role by its source": b.source_role || "",
      "Named by": b.source, Agent: b.agent, "Most sessions": b.max_sessions ? number(b.max_sessions) : "",
      "Most new sessions": b.max_rate, "Last check": lastCheck(b.check), "Next check": nextCheck(b.check),
      "Checked at": b.check?.address || "", "Bytes in": bytes(b.bytes_in), "Bytes out": bytes(b.bytes_out),
      "How sessions ended": Object.entries(b.outcomes).filter(([, n]) => n > 0)
        .map(([name, n]) => `${words(name)} ${number(n)}`).join(", ") || "none yet",
    };
    for (const [title, text] of Object.entries(facts)) {
      let fact = this.shownFacts.get(title);
      if (!fact) {
        const value = el("dd");
        fact = { value, root: el("div", {}, el("dt", {}, title), value) };
        this.shownFacts.set(title, fact);
        this.facts.append(fact.root);
      }
      fact.root.hidden = text === "";
      setText(fact.value, text);
    }
  }

  // change sends a change of a backend, and then asks for its state.
  async change(method, route, body) {
    try {
      return await ask(method, route, { body });
    } finally {
      this.model.refresh();
    }
  }

  // kept says how long a change lasts.
  kept() {
    return this.model.status.state_file
      ? "The change overrides the configuration file, also after a restart, until you undo it."
      : "The change overrides the configuration file until a restart.";
  }

  // everywhere says that a change holds on all nodes, if this is one of a fleet.
  everywhere() {
    const { fleet } = this.model.status;
    const text = `The change holds on all nodes of the fleet ${fleet?.name}. The numbers are those of this node.`;
    return fleet ? [text] : [];
  }

  // rest says what is left of the pool without a backend.
  rest(b) {
    if (!b.eligible) return "It gets no new sessions now, either.";
    const left = this.model.pool(b.pool).eligible - 1;
    return left > 0
      ? `${counted(left, "other backend")} of the pool ${left === 1 ? "stays" : "stay"} eligible.`
      : `It is the only eligible backend of ${b.pool}: new clients will find none, and are refused or wait.`;
  }

  askDrain(b) {
    const deadline = el("select", { id: "deadline" },
      ...[["0", "never: they end by themselves"], ["30", "after 30 seconds"], ["300", "after 5 minutes"],
        ["3600", "after 1 hour"]].map(([value, text]) => el("option", { value }, text)));
    const remove = el("input", { type: "checkbox", id: "remove" });
    confirm({
      title: `Drain ${b.name}?`,
      fields: [el("div", { class: "field" }, el("label", { for: "deadline" }, "End its sessions"), deadline),
        el("div", { class: "field check" }, remove,
          el("label", { for: "remove" }, "Remove it from the pool after its last session"))],
      consequence: () => [
        `${b.name} gets no new sessions. ${this.sessions(b, deadline.value)}`, this.rest(b),
        remove.checked ? `${b.name} is then no longer in ${b.pool}.` : this.kept(), ...this.everywhere(),
      ],
      verb: `Drain ${short(b.name)}`,
      danger: true,
      act: async () => {
        const body = { deadline_seconds: Number(deadline.value) };
        if (remove.checked) body.remove = true;
        await this.change("POST", `${path(b)}/drain`, body);
        return `${b.name} drains`;
      },
    });
  }

  // sessions says what becomes of a backend's sessions in a drain.
  sessions(b, deadline) {
    if (b.sessions === 0) return "It has no sessions.";
    const safe = this.model.pool(b.pool).drain === "safe" ? ", at a moment at which nothing is lost" : "";
    const [its, end, left] = b.sessions === 1 ? ["Its session may go on", "it ends", "or is cut"]
      : [`Its ${number(b.sessions)} sessions may go on`, "they end", "or are cut"];
    const cut = deadline === "0" ? "" : `, ${left} after ${duration(Number(deadline))}`;
    return `${its} until ${end}${safe}${cut}.`;
  }

  askMaintenance(b) {
    const { on_remove: onRemove, drain } = this.model.pool(b.pool);
    const its = b.sessions === 1 ? "Its session is" : `Its ${number(b.sessions)} sessions are`;
    const closes = b.sessions > 0 && drain !== "safe" && onRemove === "close";
    const fate = closes ? `${its} reset at once.` : this.sessions(b, "0");
    this.askMode(b, "maintenance", `Put ${b.name} into maintenance?`, "Maintenance",
      [`${b.name} counts as removed: it gets no new sessions. ${fate}`, this.rest(b), this.kept(),
        ...this.everywhere()]);
  }

  askReady(b) {
    const waits = b.verdict === "healthy" ? "It is healthy, and gets new sessions at once."
      : `Its verdict is ${words(b.verdict)}, so it gets new sessions only when the checks find it healthy.`;
    this.askMode(b, "ready", `Make ${b.name} ready?`, "Make ready", [waits, this.kept(), ...this.everywhere()]);
  }

  askMode(b, mode, title, verb, consequence) {
    confirm({
      title, consequence, verb: `${verb}: ${short(b.name)}`, danger: mode === "maintenance",
      act: async () => {
        await this.change("PATCH", path(b), { mode });
        return `The mode of ${b.name} is ${mode}`;
      },
    });
  }

  askWeight(b) {
    const input = el("input", { id: "weight", type: "number", min: "0", max: "256", step: "1", required: true,
      value: String(b.weight), inputmode: "numeric" });
    confirm({
      title: `Change the weight of ${b.name}?`,
      fields: [el("div", { class: "field" }, el("label", { for: "weight" }, "Weight, 0 to 256"), input)],
      consequence: () => [this.share(b, input), this.kept(), ...this.everywhere()],
      verb: "Change weight",
      act: async () => {
        await this.change("PATCH", path(b), { weight: Number(input.value) });
        return `The weight of ${b.name} is ${input.value}`;
      },
    });
  }

  // share says what another weight means for a backend's share of new sessions.
  share(b, input) {
    if (!input.validity.valid) return "A weight is a whole number from 0 to 256.";
    const weight = Number(input.value);
    if (weight === 0) return `${b.name} gets no new sessions. Its sessions go on. ${this.rest(b)}`;
    if (weight === b.weight) return "That is its weight now.";
    if (!b.eligible) return `${b.name} is not eligible now (${hint(b)}), so nothing changes before it is.`;
    const others = this.model.backends(b.pool).filter((o) => o.eligible && o.tier === b.tier && o.name !== b.name)
      .reduce((sum, o) => sum + o.weight, 0);
    const percent = (w) => `${Math.round((100 * w) / (w + others))} %`;
    return `By weight, its share of new sessions goes from about ${percent(b.weight)} to about ${percent(weight)}. ` +
      "Existing sessions stay where they are.";
  }
}

// short shortens a name for a button.
function short(name) {
  return name.length > 32 ? `${name.slice(0, 30)}…` : name;
}

function lastCheck(check) {
  if (!check?.at) return "";
  return `${ago(check.at)} ago, took ${duration(check.took_seconds)}: ${check.detail}`;
}

function nextCheck(check) {
  if (!check?.next) return "";
  const left = (Date.parse(check.next) - Date.now()) / 1000;
  return left < 1 ? "within a second" : `in ${duration(Math.round(left))}`;
}
