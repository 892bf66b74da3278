// How the states of a backend are shown: verdict, mode and breaker, which are never merged, and what follows from them;
// and those of a daemon and of a node of a fleet.
// Each has a sign besides its colour.

import { el, setAttribute, setText } from "./dom.js";
import { capital, counted, duration, since, words } from "./format.js";

const looks = {
  verdict: {
    healthy: ["good", "●"], unhealthy: ["bad", "✕"], unknown: ["idle", "○"], wrong_role: ["idle", "◐"],
    lagging: ["warn", "▲"], fallback: ["idle", "◑"],
  },
  mode: { ready: ["plain", ""], drain: ["warn", "▼"], maintenance: ["warn", "■"] },
  breaker: { closed: ["plain", ""], open: ["bad", "✕"], "half-open": ["warn", "▲"] },
  eligible: { yes: ["good", "✓"], no: ["bad", "✕"], "not now": ["idle", "–"] },
  state: { serving: ["good", "●"], starting: ["warn", "○"], handing_over: ["warn", "○"],
    draining: ["warn", "▼"] },
  node: { ready: ["good", "●"], not_ready: ["bad", "✕"], alone: ["bad", "✕"], starting: ["warn", "○"],
    handing_over: ["warn", "○"], draining: ["warn", "▼"], left: ["idle", "–"], gone: ["bad", "✕"] },
};

// A Badge shows one state with its sign.
export class Badge {
  constructor(kind) {
    this.kind = kind;
    this.sign = el("span", { class: "sign", "aria-hidden": "true" });
    this.text = el("span");
    this.root = el("span", { class: "badge" }, this.sign, this.text);
  }

  show(state) {
    const [look, sign] = looks[this.kind][state] || ["warn", "?"];
    setAttribute(this.root, "class", `badge ${look}`);
    setText(this.sign, sign);
    setText(this.text, capital(words(state)));
  }
}

// whyNot returns why a backend is not eligible, in words.
export function whyNot(b) {
  const why = [];
  if (b.mode !== "ready") why.push(b.mode);
  if (b.verdict !== "healthy") why.push(words(b.verdict));
  if (b.breaker === "open") why.push("breaker open");
  if (b.weight === 0) why.push("weight 0");
  if (why.length === 0 && b.agent) why.push(`agent: ${b.agent}`);
  return why.join(", ");
}

// asIntended reports whether nobody needs to look at a backend that is not eligible: an operator wants it so, or it has
// the other role.
function asIntended(b) {
  return b.mode !== "ready" || b.weight === 0 || b.verdict === "wrong_role" || b.verdict === "fallback";
}

export function eligibility(b) {
  if (b.eligible) return "yes";
  return asIntended(b) ? "not now" : "no";
}

// hint returns what to know about the choice of a backend, besides whether it is eligible.
export function hint(b) {
  const hints = [];
  if (b.drain) hints.push(draining(b.drain));
  else if (b.mode !== "ready" && b.sessions > 0) hints.push(`${counted(b.sessions, "session")} left`);
  if (!b.eligible) hints.unshift(whyNot(b));
  else {
    if (b.verdict !== "healthy" && b.verdict !== "fallback") hints.push(`tried although ${words(b.verdict)}`);
    if (b.max_sessions > 0 && b.sessions >= b.max_sessions) hints.push("full");
    if (b.agent) hints.push(`agent: ${b.agent}`);
  }
  if (b.tier > 0) hints.push(`tier ${b.tier}`);
  return hints.filter(Boolean).join(" · ");
}

// role returns the role that the last check found, or else that the source gives, with the lag of a replica.
export function role(b) {
  const found = b.check?.role || (b.source_role === "unknown" ? "" : b.source_role) || "";
  return b.check?.lag_seconds === undefined ? found : `${found || "replica"}, lag ${duration(b.check.lag_seconds)}`;
}

// reason returns what the last check found.
export function reason(b) {
  return !b.check && b.reason === "initial" ? "not checked" : b.reason;
}

// draining describes how far a drain has come.
export function draining(d) {
  let text = `${d.sessions_left.toLocaleString("en")} of ${counted(d.sessions_at_start, "session")} left`;
  if (d.deadline) text += `, ended in ${duration(Math.max(0, Math.round(until(d.deadline))))}`;
  if (d.remove) text += ", then removed";
  return text;
}

function until(time) {
  return (Date.parse(time) - Date.now()) / 1000;
}

// lasting returns for how long a backend has had its verdict.
export function lasting(b) {
  return Date.parse(b.since) > 0 ? `for ${duration(Math.floor(since(b.since)))}` : "";
}
