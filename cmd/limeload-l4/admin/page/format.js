// Numbers, sizes and times in the form that the command line has, too.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function number(n) {
  return whole.format(n);
}

// counted returns a number with its noun.
export function counted(n, noun) {
  return `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
}

// rate formats events in a second; null is not known yet.
export function rate(perSecond) {
  if (perSecond === null) return "–";
  if (perSecond > 0 && perSecond < 0.05) return "<0.1";
  return perSecond < 9.95 && perSecond > 0 ? perSecond.toFixed(1) : number(perSecond);
}

export function bytes(n) {
  if (n < 1024) return `${number(n)} B`;
  let unit = 0;
  n /= 1024;
  while (n >= 1023.95 && unit < 5) {
    n /= 1024;
    unit++;
  }
  return `${n.toFixed(1)} ${"KMGTPE"[unit]}iB`;
}

export function bytesRate(perSecond) {
  return perSecond === null ? "–" : `${bytes(perSecond)}/s`;
}

// duration formats seconds with at most two units.
export function duration(seconds) {
  seconds = Math.max(seconds, 0);
  if (seconds === 0) return "0s";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)}µs`;
  if (seconds < 1) return `${Math.round(seconds * 1e3)}ms`;
  if (seconds < 10) return `${(Math.floor(seconds * 10) / 10).toString()}s`;
  seconds = Math.floor(seconds);
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${seconds % 60}s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h${Math.floor((seconds % 3600) / 60)}m`;
  return `${Math.floor(seconds / 86400)}d${Math.floor((seconds % 86400) / 3600)}h`;
}

// since returns the seconds that have passed since a time of the API. The clocks of the daemon's machine and of this
// one may differ, so it is never negative.
export function since(time) {
  return Math.max(0, (Date.now() - Date.parse(time)) / 1000);
}

// ago formats how long ago a time was, in whole seconds.
export function ago(time) {
  return duration(Math.floor(since(time)));
}

// clock formats the time of day of an event.
export function clock(time) {
  return new Date(time).toLocaleTimeString("en-GB");
}

export function date(time) {
  return new Date(time).toISOString().slice(0, 10);
}

// words writes a word of the API for people: "no_backend" becomes "no backend".
export function words(name) {
  return name.replaceAll("_", " ");
}

// capital begins a text with a capital letter.
export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// sum adds the numbers of an object.
export function sum(counts) {
  let total = 0;
  for (const name in counts) total += counts[name];
  return total;
}

// natural compares names as people sort them: b2 before b10.
export const natural = new Intl.Collator("en", { numeric: true }).compare;
