// The page of limeload-l4: it asks the control API once a second, one request at a time, and shows the answers.

import { Failure, get, hasToken, pathOf, useToken } from "./api.js";
import { Panel } from "./backend.js";
import { Clients } from "./clients.js";
import { Configuration } from "./configuration.js";
import { askToken } from "./dialogs.js";
import { el, setAttribute, setText } from "./dom.js";
import { Events } from "./events.js";
import { Fleet } from "./fleet.js";
import { duration, number, sum } from "./format.js";
import { Overview, notices, reload, uptime } from "./overview.js";
import { Histories, Rate, Series, traffic } from "./series.js";
import { Sessions } from "./sessions.js";
import { Badge } from "./states.js";

const every = 1000; // milliseconds between an answer and the next question
const everyLarge = 2000; // while more than large backends are looked at
const large = 300;
const patience = 10_000; // the longest wait after a question without an answer

// A Model is what the page knows of the daemon.
class Model {
  status = null;
  histories = new Histories(traffic); // of backends, by pool and name
  poolHistories = new Histories(traffic);
  listenerHistories = new Histories(() => ({ ...traffic(), refused: new Rate() }));
  totals = { sessions: new Series(), ...Object.fromEntries(
    ["started", "in", "out", "refused"].map((name) => [name, new Series()])) };
  #backends = new Map(); // of pools that are looked at: by name, and in a list

  backends(pool) {
    return [...(this.#backends.get(pool)?.values() || [])];
  }

  backend(pool, name) {
    return this.#backends.get(pool)?.get(name);
  }

  pool(name) {
    return this.status.pools.find((pool) => pool.name === name);
  }

  takeStatus(status, at) {
    this.status = status;
    for (const l of status.listeners) {
      const h = this.listenerHistories.of(`${l.protocol} ${l.name}`);
      h.started.count(l.accepted, at);
      this.#count(h, l, at);
      h.refused.count(sum(l.refused), at);
    }
    const listeners = status.listeners.map((l) => this.listenerHistories.of(`${l.protocol} ${l.name}`));
    this.totals.sessions.push(status.sessions, at);
    for (const name of ["started", "in", "out", "refused"]) {
      const known = listeners.map((h) => h[name].last).filter((value) => value !== null);
      this.totals[name].push(known.length ? known.reduce((a, b) => a + b, 0) : null, at);
    }
    for (const p of status.pools) {
      const h = this.poolHistories.of(p.name);
      h.started.count(sum(p.outcomes) + p.sessions, at);
      this.#count(h, p, at);
    }
  }

  takeBackends(pool, list, at) {
    this.#backends.set(pool, new Map(list.map((b) => [b.name, b])));
    for (const b of list) {
      const h = this.histories.of(`${pool}\n${b.name}`);
      h.started.count(sum(b.outcomes) + b.sessions, at);
      this.#count(h, b, at);
    }
  }

  #count(h, thing, at) {
    h.sessions.push(thing.sessions, at);
    h.in.count(thing.bytes_in, at);
    h.out.count(thing.bytes_out, at);
    h.both.count(thing.bytes_in + thing.bytes_out, at);
  }

  // keep drops the backends of all pools but these.
  keep(pools) {
    for (const pool of this.#backends.keys()) {
      if (!pools.includes(pool)) this.#backends.delete(pool);
    }
    const keys = new Set();
    for (const [pool, list] of this.#backends) {
      for (const name of list.keys()) keys.add(`${pool}\n${name}`);
    }
    this.histories.keep(keys);
  }

  // refresh asks at once, because somebody has changed something or looks at something else.
  refresh() {
    view.again = true;
    clock.soon();
  }
}

// A Clock asks again and again: one question at a time, none while the tab is hidden, and at once after a change.
class Clock {
  #timer = 0;
  #asking = false;
  #again = false;
  #failed = 0;

  constructor(question) {
    this.question = question;
    document.addEventListener("visibilitychange", () => (document.hidden ? showLink("paused") : this.soon()));
  }

  soon() {
    if (this.#asking) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), 0);
  }

  async #ask() {
    if (document.hidden || this.stopped) return;
    this.#asking = true;
    this.#again = false;
    const began = performance.now();
    let wait;
    try {
      wait = Math.max(await this.question(), 4 * (performance.now() - began));
      this.#failed = 0;
      showLink("live");
    } catch (e) {
      if (!(e instanceof Failure)) console.error(e);
      wait = Math.min(every * 2 ** this.#failed++, patience);
      failed(e);
    }
    this.#asking = false;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), this.#again ? 0 : Math.min(wait, patience));
  }
}

const model = new Model();
const panel = new Panel(model);
const overview = new Overview(model, panel);
const views = {
  overview, sessions: new Sessions(model), clients: new Clients(model), fleet: new Fleet(), events: new Events(),
  configuration: new Configuration(),
};
let view = null;

const clock = new Clock(async () => {
  const status = await get("/v1/status");
  if (clock.stopped) return every; // the token was forgotten meanwhile
  model.takeStatus(status, performance.now());
  showStatus(status);
  view.update?.(status);
  const wanted = view === overview ? overview.pools.wanted() : [];
  if (panel.pool !== null && !wanted.includes(panel.pool)) wanted.push(panel.pool);
  await loadBackends(status, wanted.filter((name) => model.pool(name)));
  panel.update();
  if (view.load && performance.now() - (view.loaded || -Infinity) >= (view.again ? 0 : view.every)) {
    view.again = false;
    await view.load();
    view.loaded = performance.now();
  }
  const looked = wanted.reduce((n, name) => n + (model.pool(name)?.backends || 0), 0);
  return looked > large ? everyLarge : every;
});

// loadBackends asks for the backends of some pools, and shows them. Of many small pools it asks for all at once.
async function loadBackends(status, wanted) {
  const all = status.pools.reduce((n, pool) => n + pool.backends, 0);
  if (wanted.length > 3 && all <= large) {
    const { backends } = await get("/v1/backends");
    const at = performance.now();
    const byPool = Map.groupBy(backends, (b) => b.pool);
    for (const name of wanted) model.takeBackends(name, byPool.get(name) || [], at);
  } else {
    for (const name of wanted) {
      try {
        const { backends } = await get(pathOf("v1", "pools", name, "backends"));
        model.takeBackends(name, backends, performance.now());
      } catch (e) {
        if (e.kind !== "/problems/unknown-pool") throw e; // a reload has removed it meanwhile
      }
    }
  }
  model.keep([...overview.pools.open(), panel.pool]);
  for (const name of wanted) overview.pools.showBackends(name);
}

const find = (id) => document.getElementById(id);
const state = new Badge("state");
find("state").append(state.root);

function showStatus(status) {
  state.show(status.state);
  find("nav-fleet").hidden = !status.fleet;
  setText(find("host"), status.host);
  setText(find("version"), status.version);
  setText(find("uptime"), duration(Math.floor(uptime(status))));
  setText(find("sessions"), status.max_sessions ? `${number(status.sessions)} of ${number(status.max_sessions)}`
    : number(status.sessions));
  setText(find("reload"), reload(status.reloads));
  setAttribute(find("reload"), "class", status.reloads.error ? "bad" : null);
  const bad = notices(status).filter((notice) => notice.look === "bad").length;
  document.title = `${bad ? `(${bad}) ` : ""}${status.host ? `${status.host} · ` : ""}LimeLoad`;
  find("facts").hidden = false;
  find("problem").hidden = true;
  find("view").hidden = false;
}

function showLink(look, text) {
  const texts = { live: "Live", paused: "Paused", lost: "No answer" };
  setAttribute(find("link"), "data-look", look);
  setText(find("link"), text || texts[look]);
}

let asking = false;

// failed shows why there is nothing new.
function failed(e) {
  if (e.kind === "/problems/unauthorized") {
    stopForToken();
    return;
  }
  showLink("lost");
  const text = e instanceof Failure ? e.message : `The page has a mistake: ${e.message}`;
  showProblem(`${text} What you see is the last answer. The page tries again.`);
}

function showProblem(text, ...more) {
  const place = find("problem");
  place.hidden = false;
  if (place.shown !== text) {
    place.shown = text;
    place.replaceChildren(el("p", {}, text), ...more);
  }
}

// stopForToken asks nothing more until there is a token that the daemon takes.
function stopForToken() {
  clock.stopped = true;
  showLink("paused", "Needs a token");
  useToken("");
  showToken();
  find("view").hidden = find("facts").hidden = true;
  showProblem("A token is needed. Without it, this page cannot show or change anything.",
    el("button", { type: "button", class: "primary", on: { click: askForToken } }, "Enter the token"));
  askForToken();
}

function askForToken() {
  if (asking) return;
  asking = true;
  askToken(async (text) => {
    if (!/^[\x21-\x7e]+$/.test(text)) return "A token is one line of ASCII characters without spaces.";
    useToken(text);
    try {
      await get("/v1/log");
    } catch (e) {
      useToken("");
      return e.kind === "/problems/unauthorized" ? "The daemon does not accept this token." : e.message;
    }
    asking = false;
    begin();
    return "";
  }, () => {
    asking = false;
  });
}

function showToken() {
  find("token").hidden = !hasToken();
}

let stream = null;

// begin begins to ask, and to follow the events.
function begin() {
  showToken();
  clock.stopped = false;
  stream?.abort();
  stream = new AbortController();
  views.events.follow(stream.signal);
  clock.soon();
}

// choose shows the view that the address names. The skip link and others name none.
function choose() {
  const name = location.hash.slice(1) || "overview";
  const next = views[name] || view || overview;
  if (next === view) return;
  view = next;
  for (const [key, one] of Object.entries(views)) {
    one.hidden = one !== view;
    setAttribute(find(`nav-${key}`), "aria-current", one === view ? "page" : null);
  }
  find("view").replaceChildren(el("h2", { class: view === overview ? "unseen" : "view-title" }, view.title), view.root);
  view.show?.();
  view.again = true;
  if (model.status) view.update?.(model.status);
  clock.soon();
}

const themes = ["system", "light", "dark"];

function setTheme(theme) {
  setAttribute(document.documentElement, "data-theme", theme === "system" ? null : theme);
  setText(find("theme-name"), theme);
  localStorage.setItem("limeload-theme", theme);
}

const theme = localStorage.getItem("limeload-theme");
setTheme(themes.includes(theme) ? theme : "system");
find("theme").addEventListener("click", () => {
  setTheme(themes[(themes.indexOf(localStorage.getItem("limeload-theme")) + 1) % themes.length]);
});
find("token").addEventListener("click", () => {
  stream?.abort();
  stopForToken();
});
find("skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("main").focus();
});
window.addEventListener("hashchange", choose);
for (const [key, one] of Object.entries(views)) {
  find("nav").append(el("a", { href: `#${key}`, id: `nav-${key}`, hidden: key === "fleet" }, one.title));
}
choose();
begin();
