// The control API, as the page uses it.

const kept = "limeload-token"; // the key of the token in the tab's storage

// A Failure is an answer that is an error, or no answer. Its message is for people.
export class Failure extends Error {
  // kind is the type of the problem, such as "/problems/unauthorized", or "offline".
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

// explained returns what a problem means for whoever looks at the page.
function explained(problem, status) {
  const detail = problem.detail || problem.title || `the status is ${status}`;
  switch (problem.type) {
    case "/problems/unauthorized":
      return "The token is missing or wrong.";
    case "/problems/read-only":
      return "This address can only be read, because it is TCP and has no token. To make changes, set " +
        "admin.token_file, or open the page by the Unix socket.";
    case "/problems/not-saved":
      return `The change is in force, but it could not be saved, and so ends with the process: ${detail}`;
    case "/problems/unknown-backend":
      return "The backend is no longer in the pool.";
    case "/problems/unknown-session":
      return "The session has ended already.";
    case "/problems/ending":
      return "The daemon is shutting down, and takes no changes any more.";
    case "/problems/busy":
      return "The daemon answers too many requests at this moment.";
  }
  return `The daemon refuses: ${detail}.`;
}

// pathOf returns a path with its parts escaped.
export function pathOf(...parts) {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

let token = sessionStorage.getItem(kept) || "";

export const hasToken = () => token !== "";

// useToken sets the token of all further requests, and keeps it until the tab is closed; "" is none.
export function useToken(text) {
  token = text;
  if (text) {
    sessionStorage.setItem(kept, text);
  } else {
    sessionStorage.removeItem(kept);
  }
}

// ask sends a request and returns the answer's JSON; null if there is none. It throws a Failure.
export async function ask(method, path, { body, query, timeout = 15_000 } = {}) {
  const answer = await send(method, path + queryOf(query), body, AbortSignal.timeout(timeout));
  const text = await answer.text().catch(unreachable);
  return text === "" ? null : JSON.parse(text);
}

export const get = (path, query) => ask("GET", path, { query });

function queryOf(query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

async function send(method, path, body, signal) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store",
    credentials: "omit", redirect: "error",
  }).catch(unreachable);
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Failure(problem.type || "unknown", explained(problem, answer.status));
}

function unreachable() {
  throw new Failure("offline", "The daemon does not answer.");
}

// follow calls each event of the daemon's stream, until signal or the stream ends. opened is called first.
export async function follow(signal, opened, each) {
  const answer = await send("GET", "/v1/events", undefined, signal);
  opened();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data) each(JSON.parse(data.slice("data: ".length)));
    }
  }
}
