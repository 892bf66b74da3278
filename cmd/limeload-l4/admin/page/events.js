// The log of events since the page was opened.

import { follow } from "./api.js";
import { announce, el, setText } from "./dom.js";
import { capital, clock, counted, words } from "./format.js";

const most = 300; // events are kept

// worth are the kinds that a screen reader says at once; the others are in the list.
const worth = ["verdict_changed", "mode_changed", "breaker_changed", "role_changed", "drained", "reloaded",
  "reload_failed", "tls_reload_failed", "access_reload_failed", "upgraded", "upgrade_failed", "draining"];

// An Events is the view of the events. It follows the stream in every view, and draws only when it is shown.
export class Events {
  title = "Events";
  #events = [];
  #waiting = 0;

  constructor() {
    this.search = el("input", { id: "events-search", type: "search", placeholder: "Pool, backend or kind",
      spellcheck: "false", on: { input: () => this.draw() } });
    this.about = el("p", { class: "count-line" });
    this.list = el("ol", { class: "events", reversed: true });
    this.root = el("div", {}, el("div", { class: "filter" }, el("div", { class: "field" },
      el("label", { for: "events-search" }, "Search"), this.search)), this.about,
    el("div", { class: "card" }, this.list));
    this.draw();
  }

  // follow reads the stream, and begins again when it breaks, until signal.
  async follow(signal) {
    for (let wait = 1000; !signal.aborted; wait = Math.min(wait * 2, 30_000)) {
      try {
        await follow(signal, () => {
          wait = 500;
          if (this.broken) this.add({ at: new Date().toISOString(), kind: "missed" });
          this.broken = false;
        }, (event) => this.add(event));
      } catch {
        // the page says elsewhere that the daemon does not answer, or wants a token
      }
      if (signal.aborted) return;
      this.broken = this.#events.length > 0;
      await new Promise((resume) => setTimeout(resume, wait));
    }
  }

  add(event) {
    this.#events.unshift(event);
    if (this.#events.length > most) this.#events.length = most;
    if (worth.includes(event.kind)) announce(sentence(event));
    if (!this.#waiting) {
      this.#waiting = setTimeout(() => {
        this.#waiting = 0;
        this.draw();
      }, 250);
    }
  }

  draw() {
    if (this.hidden) return;
    const wanted = this.search.value.trim().toLowerCase();
    const shown = this.#events.filter((e) => wanted === "" ||
      `${e.kind} ${words(e.kind)} ${e.pool} ${e.backend} ${e.backend_address}`.toLowerCase().includes(wanted));
    setText(this.about, shown.length ? `${counted(shown.length, "event")} since the page was opened, the latest first`
      : "No events yet. They appear here as they happen.");
    this.list.replaceChildren(...shown.map((e) => el("li", { class: lookOf(e) },
      el("time", { datetime: e.at }, clock(e.at)), el("span", { class: "what" }, sentence(e)))));
  }

  show() {
    this.draw();
  }
}

function lookOf(e) {
  if (e.kind.endsWith("_failed") || e.to === "unhealthy" || e.to === "open") return "bad";
  if (e.to === "lagging" || e.to === "drain" || e.to === "maintenance" || e.kind === "draining") return "warn";
  return e.to === "healthy" || e.to === "ready" || e.to === "closed" ? "good" : "";
}

// sentence describes an event.
function sentence(e) {
  if (e.kind === "missed") return "The stream was broken for a while: events may be missing here";
  const who = e.backend ? `${e.backend} of ${e.pool}` : e.pool || "";
  const what = words(e.kind);
  let text = who ? `${who}: ${what}` : capital(what);
  if (e.from || e.to) text += ` from ${words(e.from || "none")} to ${words(e.to || "none")}`;
  const more = [e.reason, e.text].filter(Boolean).join("; ");
  if (more) text += `: ${more}`;
  if (e.lost) text += ` (${counted(e.lost, "event")} before this one lost)`;
  return text;
}
