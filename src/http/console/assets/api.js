// The calls. The token is kept here, in memory, and nowhere else.

import { heard } from "./time.js";
import { text } from "./strings.js";

const PATIENCE = 15_000;

/** No event and no sign of life for so long: the connection is dead. A server sends one every 15 s. */
const SILENCE = 45_000;

let token = null;

/** An answer that is no success, or none at all (status 0). */
export class Failure extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Takes the token to show from now on. */
export function use(given) {
  token = given;
}

export const hasToken = () => token !== null;

/** Whether a text may be a token (RFC 6750). */
export const isToken = (given) => given.length <= 512 && /^[A-Za-z0-9\-._~+/]+=*$/.test(given);

/** The address of a user's sessions, or of one. A browser takes "." and ".." out of an address, and
 * would call another one. */
export function path(user, ...rest) {
  const parts = [user, ...rest];
  if (parts.some((part) => part === "." || part === "..")) throw new Failure(0, text.badName);
  return ["v1/users", ...parts.map(encodeURIComponent)].join("/");
}

function headers(more) {
  return token === null ? more : { authorization: `Bearer ${token}`, ...more };
}

async function answer(method, address, options) {
  let response;
  try {
    response = await fetch(address, {
      method, cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
      ...options,
    });
  } catch (error) {
    if (options.signal?.aborted && options.signal.reason?.name !== "TimeoutError") throw error;
    throw new Failure(0, text.unreachable);
  }
  heard(response.headers.get("date"));
  if (response.ok || (response.status === 503 && address === "readyz")) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Failure(response.status, problem.detail ?? problem.title ?? `${response.status}`);
}

/** Makes a call; the JSON of its answer, null if it has none. */
export async function call(method, address, body) {
  const options = { headers: headers({ accept: "application/json" }), signal: AbortSignal.timeout(PATIENCE) };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  const response = await answer(method, address, options);
  const told = await response.text();
  return told === "" ? null : JSON.parse(told);
}

/** Reads events until the stream ends; `take` gets each, `opened` is called once it is there. */
export async function events(last, opened, take) {
  const giveUp = new AbortController();
  const asked = headers({ accept: "text/event-stream" });
  if (last) asked["last-event-id"] = last;
  let timer = setTimeout(() => giveUp.abort(), SILENCE);
  try {
    const response = await answer("GET", "v1/events", { headers: asked, signal: giveUp.signal });
    opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let event = {};
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => giveUp.abort(), SILENCE);
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) event = read(line.replace(/\r$/, ""), event, take);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Reads one line of a stream of events; the event as it is so far. */
function read(line, event, take) {
  if (line === "") {
    if (event.data !== undefined) take(event);
    return {};
  }
  const colon = line.indexOf(":");
  if (colon === 0) return event;
  const field = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (field === "data") return { ...event, data: event.data === undefined ? value : `${event.data}\n${value}` };
  return { ...event, [field]: value };
}
