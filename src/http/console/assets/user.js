// One user: the limit and where it comes from, live streams, and what ended lately.

import * as api from "./api.js";
import { align, byId, facts, fill, h, name, say } from "./dom.js";
import { endAll } from "./ending.js";
import { describe } from "./lately.js";
import { key, model } from "./model.js";
import { text } from "./strings.js";
import { now, shown } from "./time.js";
import { parts, update } from "./watching.js";

const PAUSE = 5_000;

let open = null;

/** Whether the server tells where a limit comes from. */
let hasLimits = true;

export function setUp() {
  byId("look-up-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const user = byId("look-up-user").value;
    if (user !== "") openUser(user);
  });
  setInterval(() => {
    if (open && !document.hidden) read(open);
  }, PAUSE);
}

export function openUser(user) {
  byId("look-up-user").value = user;
  const title = h("h3", { tabIndex: -1 }, text.user(""), name(user));
  const close = h("button", { type: "button" }, text.close);
  close.addEventListener("click", closeUser);
  const all = h("button", { type: "button", className: "danger", disabled: true }, text.endAll);
  all.addEventListener("click", () => endAll(user));
  open = {
    user, all, error: h("p", { className: "error" }), about: h("div"), rows: h("tbody"), kept: new Map(),
    none: h("p", {}, text.noSessions), past: h("ol", { className: "feed" }), pastNote: h("p", { className: "note" }),
    sessions: [], seen: null,
  };
  const head = ["session", "content", "device", "kind", "since", "lease", "action"].map((column) => h("th", { scope: "col" }, text.columns[column]));
  open.table = h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": text.liveSessions, hidden: true },
    h("table", {}, h("thead", {}, h("tr", {}, head)), open.rows));
  fill(byId("user"), h("div", { className: "panel" },
    h("div", { className: "bar" }, title, close), open.error, open.about,
    h("h3", {}, text.liveSessions), open.none, open.table, h("div", { className: "bar" }, all),
    h("h3", {}, text.endedLately), open.pastNote, open.past));
  title.focus();
  read(open);
  showUser();
}

export function closeUser() {
  open = null;
  fill(byId("user"));
}

/** Reads the open user again. */
export function refreshUser() {
  if (open) read(open);
}

async function read(asked) {
  try {
    const [sessions, limit] = await Promise.all([api.call("GET", api.path(asked.user, "sessions")), limitOf(asked.user)]);
    if (open !== asked) return;
    say(asked.error, "");
    const own = limit ?? { limit: sessions.limit };
    const until = own.expires_at ? text.limitUntil(shown(own.expires_at)) : "";
    fill(asked.about, facts([
      [text.limit, text.limitFrom(own.limit, text.sources[own.source] ?? own.source ?? "") + until],
      [text.active, `${sessions.active}`],
      [text.canStart, sessions.can_start ? text.yes : text.no],
    ]));
    const longest = new Map(asked.sessions.map((session) => [key(session), session.longest]));
    asked.sessions = sessions.sessions.map((session) => {
      const full = { ...session, user: asked.user };
      const left = Date.parse(session.expires_at) - now();
      return { ...full, longest: Math.max(longest.get(key(full)) ?? 0, left) };
    });
    showUser();
  } catch (failure) {
    if (open === asked) say(asked.error, text.failed(failure.message));
  }
}

/** The limit and where it comes from, if the server tells. The sessions' answer has the limit in any
 * case. */
async function limitOf(user) {
  if (!hasLimits) return null;
  try {
    return await api.call("GET", api.path(user, "limit"));
  } catch (failure) {
    hasLimits = failure.status !== 404;
    return null;
  }
}

export function showUser() {
  if (!open) return;
  const { user, sessions, kept, rows, table, none, all, past, pastNote } = open;
  align(rows, kept, sessions, key, row, update);
  table.hidden = sessions.length === 0;
  none.hidden = sessions.length > 0;
  all.disabled = sessions.length === 0;
  const events = model.events.filter((event) => event.user === user);
  const newest = events[0]?.heard ?? null;
  if (newest === open.seen && pastNote.textContent !== "") return;
  // Something has happened to this user: what is shown is not the last any more.
  if (open.seen !== newest && newest !== null) read(open);
  open.seen = newest;
  const ends = events.filter((event) => event.type !== "started");
  say(pastNote, text.endedNote(shown(model.opened)));
  fill(past, ends.length === 0 ? h("li", {}, text.endedNone) : ends.slice(0, 50).map((event) => h("li", {}, describe(event, false))));
}

function row(session) {
  const made = parts(session);
  const cells = [h("span", {}, name(session.session)), made.content, made.device, made.kind, made.since,
    [made.meter, " ", made.rest], made.end];
  return { ...made, element: h("tr", { "data-session": session.session }, cells.map((cell) => h("td", {}, cell))) };
}
