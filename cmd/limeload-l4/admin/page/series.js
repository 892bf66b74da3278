// Histories of numbers, and rates from the differences of counters.

import { svg } from "./dom.js";

// points is how many values a history has: a minute of one a second.
const points = 60;

// pause is the time in milliseconds without an answer after which a history begins anew: the tab was hidden.
const pause = 10_000;

// A Series is the history of one number.
export class Series {
  values = [];
  last = null; // null if it is not known
  at = -Infinity;

  // push adds a value of the moment at, in milliseconds.
  push(value, at) {
    if (at - this.at > pause) this.values = [];
    this.at = at;
    this.last = value;
    if (value === null) return;
    this.values.push(value);
    if (this.values.length > points) this.values.shift();
  }
}

// A Rate is the history of how fast a counter grows, in a second.
export class Rate extends Series {
  total = null;

  // count adds the counter's value at a moment.
  count(total, at) {
    const known = this.total !== null && at - this.at <= pause && at > this.at;
    // A counter falls when its process starts again, or when a backend of a pool leaves.
    this.push(known ? Math.max(0, (total - this.total) / (at - this.at)) * 1000 : null, at);
    this.total = total;
  }
}

// A Histories keeps the histories of many things by their keys, and forgets those that are not asked for any more.
export class Histories {
  #all = new Map();
  #make;

  constructor(make) {
    this.#make = make;
  }

  of(key) {
    let h = this.#all.get(key);
    if (!h) this.#all.set(key, h = this.#make());
    return h;
  }

  // keep forgets all but these.
  keep(keys) {
    if (this.#all.size <= keys.size) return;
    for (const key of this.#all.keys()) {
      if (!keys.has(key)) this.#all.delete(key);
    }
  }
}

// traffic is the history of something that has sessions.
export function traffic() {
  return { sessions: new Series(), started: new Rate(), in: new Rate(), out: new Rate(), both: new Rate() };
}

// A Spark draws a history as a small line. It is not for screen readers: the number stands beside it.
export class Spark {
  constructor(width = 72, height = 20) {
    this.width = width;
    this.height = height;
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.root = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none",
      "aria-hidden": "true", focusable: "false" }, this.area, this.line);
    this.drawn = "";
  }

  draw({ values }) {
    let path = "";
    if (values.length > 1) {
      const step = this.width / (points - 1), top = Math.max(...values, 1e-9), low = this.height - 1;
      let x = this.width - step * (values.length - 1);
      path = "M";
      for (const value of values) {
        path += `${x.toFixed(1)} ${(low - (value / top) * (this.height - 3)).toFixed(1)}L`;
        x += step;
      }
      path = path.slice(0, -1);
    }
    if (path === this.drawn) return;
    this.drawn = path;
    this.line.setAttribute("d", path);
    const left = this.width - (this.width / (points - 1)) * (values.length - 1);
    this.area.setAttribute("d", path && `${path}V${this.height}H${left.toFixed(1)}Z`);
  }
}
