// What the page knows, and how it stays known: pages of sessions, events, numbers, the instance.

import * as api from "./api.js";
import { now } from "./time.js";

/** At most so many sessions are read, and kept. */
const MAX_READ = 500;
const MAX_KEPT = 1000;
const MAX_PAGES = 10;
const MAX_EVENTS = 500;

/** How often each is asked for, in milliseconds. */
const STATS = 3_000;
const SESSIONS = 2_000;
const SESSIONS_WITH_EVENTS = 20_000;
const MANY_SESSIONS = 10_000;
const INSTANCE = 15_000;
const SOON = 5_000;
const ABSENT = 60_000;

/** What was read so long ago is old; longer where it is read seldom. */
const STALE = 10_000;

/** How long an event outweighs a page that was read meanwhile. */
const RECENT = 60_000;
const MAX_RECENT = 5_000;

export const model = {
  sessions: new Map(),
  /** Whether all pages were read, so that the list is whole. */
  isWhole: true,
  stats: null,
  instance: null,
  readiness: null,
  /** Newest first. */
  events: [],
  opened: now(),
  /** opening, live, polling or lost. */
  connection: "opening",
  /** When each of what moves was read last, and what is wrong with reading it. */
  read: new Map(),
  troubles: new Map(),
};

/** A session's key among all. */
export const key = (session) => JSON.stringify([session.user, session.kind, session.session]);

/** How long each of what moves may stay unread before it is old. */
const MAY_STAY = {
  stats: () => STALE,
  sessions: () => (model.troubles.has("sessions") ? STALE : Math.max(STALE, 2.5 * sessionsPause())),
};

/** When the oldest of what is shown was read, if it is old. */
export function staleSince() {
  const old = [...model.read].filter(([what, at]) => Date.now() - at > MAY_STAY[what]());
  return old.length === 0 ? null : Math.min(...old.map(([, at]) => at));
}

/** Whether nothing that moves has been read yet. */
export const isEmpty = () => model.read.size === 0;

/** What is wrong with reading, if anything is. */
export const trouble = () => [...model.troubles.values()][0] ?? "";

const listeners = [];
let isScheduled = false;
let ended = new Map();
let started = new Map();
let lastEvent = null;
let hasEvents = false;
let generation = 0;
let soon = null;
let wakers = [];

/** Calls a function after each change, at most a few times a second. */
export const onChange = (listener) => listeners.push(listener);

export function changed() {
  if (isScheduled) return;
  isScheduled = true;
  setTimeout(() => {
    isScheduled = false;
    listeners.forEach((listener) => listener());
  }, 60);
}

/** Starts to follow everything; an earlier start ends. `denied` gets the failure where the caller
 * may not see this. */
export function follow(denied) {
  generation += 1;
  const own = generation;
  Object.assign(model, {
    sessions: new Map(), isWhole: true, stats: null, instance: null, readiness: null, events: [], opened: now(),
    connection: "opening", read: new Map(), troubles: new Map(),
  });
  [ended, started, lastEvent, hasEvents, wakers] = [new Map(), new Map(), null, false, []];
  const goesOn = (failure) => {
    if (own !== generation) return false;
    if (failure?.status !== 401 && failure?.status !== 403) return true;
    generation += 1;
    denied(failure);
    return false;
  };
  repeat(goesOn, "sessions", readSessions, sessionsPause);
  repeat(goesOn, "stats", readStats, () => (model.stats ? STATS : ABSENT));
  repeat(goesOn, "instance", readInstance, () => INSTANCE);
  listen(goesOn);
}

/** Stops to follow, and forgets everything. */
export function forget() {
  generation += 1;
  Object.assign(model, { sessions: new Map(), stats: null, instance: null, readiness: null, events: [] });
}

/** Reads everything again now. */
export function refresh() {
  wakers.splice(0).forEach((wake) => wake());
}

const wait = (time) => new Promise((resolve) => {
  setTimeout(resolve, time);
  wakers.push(resolve);
});

function sessionsPause() {
  if (hasEvents) return SESSIONS_WITH_EVENTS;
  return model.isWhole ? SESSIONS : MANY_SESSIONS;
}

async function repeat(goesOn, what, read, pause) {
  let failure;
  do {
    try {
      await read();
      failure = undefined;
    } catch (error) {
      failure = error;
    }
    if (!goesOn(failure)) return;
    if (failure) {
      model.troubles.set(what, failure.message);
      if (failure.status === 0) model.connection = "lost";
    } else {
      model.troubles.delete(what);
    }
    changed();
    await wait(failure ? Math.max(pause(), 3_000) : pause());
    // A page that nobody sees asks nothing.
    while (document.hidden && goesOn()) await wait(1_000);
  } while (goesOn());
}

function updated(what) {
  model.read.set(what, Date.now());
  model.connection = hasEvents ? "live" : "polling";
}

async function readSessions() {
  const asked = Date.now();
  const found = new Map();
  let cursor;
  let pages = 0;
  do {
    const more = cursor === undefined ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const page = await api.call("GET", `v1/sessions?limit=200${more}`);
    for (const session of page.sessions) found.set(key(session), session);
    cursor = page.next;
    pages += 1;
  } while (cursor !== undefined && found.size < MAX_READ && pages < MAX_PAGES);
  model.isWhole = cursor === undefined;
  const before = model.sessions;
  // What happened while the pages were read is newer than they are.
  for (const [session, at] of ended) if (at >= asked) found.delete(session);
  for (const [session, known] of before) {
    const isNewer = (started.get(session) ?? 0) >= asked;
    // A session that only an event has told of has no lease here yet.
    const until = known.expires_at ? Date.parse(known.expires_at) : Date.parse(known.started_at) + RECENT;
    const isElsewhere = !model.isWhole && until > now();
    if ((isNewer || isElsewhere) && !found.has(session) && found.size < MAX_KEPT) found.set(session, known);
  }
  for (const [session, read] of found) {
    const known = before.get(session);
    read.gateway ??= known?.gateway;
    const left = read.expires_at === undefined ? 0 : Date.parse(read.expires_at) - now();
    read.longest = Math.max(known?.longest ?? 0, left);
  }
  model.sessions = found;
  for (const recent of [ended, started]) {
    for (const [session, at] of recent) if (at < asked - RECENT) recent.delete(session);
  }
  updated("sessions");
}

async function readStats() {
  try {
    model.stats = await api.call("GET", "v1/stats");
    updated("stats");
  } catch (failure) {
    if (failure.status !== 404) throw failure;
    model.stats = null;
    model.read.delete("stats");
  }
}

async function readInstance() {
  [model.instance, model.readiness] = await Promise.all([api.call("GET", "v1/instance"), api.call("GET", "readyz")]);
}

/** Listens to events for as long as there are some, and comes back after each loss. */
async function listen(goesOn) {
  let pause = 500;
  while (goesOn()) {
    let failure;
    try {
      const opened = () => {
        hasEvents = true;
        pause = 500;
        model.connection = "live";
        changed();
        // What happened before is only in the pages.
        refresh();
      };
      await api.events(lastEvent, opened, (event) => {
        if (goesOn()) take(event);
      });
    } catch (error) {
      failure = error;
    }
    if (!goesOn(failure)) return;
    const wasLive = hasEvents;
    hasEvents = false;
    if (failure?.status === 404) {
      if (model.connection === "live") model.connection = "polling";
      await new Promise((resolve) => setTimeout(resolve, ABSENT));
      continue;
    }
    model.connection = "lost";
    changed();
    if (wasLive) refresh();
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(2 * pause, 15_000);
  }
}

/** Reads the pages again after a while: an event doesn't tell the lease of what it started. */
function readSoon() {
  if (soon !== null) return;
  soon = setTimeout(() => {
    soon = null;
    refresh();
  }, SOON);
}

/** Puts something into a map; what has been in it longest makes room. */
function note(map, name, value, most) {
  map.delete(name);
  map.set(name, value);
  if (map.size > most) map.delete(map.keys().next().value);
}

/** Takes an event in. */
function take({ id, event, data }) {
  if (id) lastEvent = id;
  let told;
  try {
    told = JSON.parse(data);
  } catch {
    return;
  }
  told.type ??= event;
  if (told.type === "dropped") return;
  const heard = Date.now();
  if (told.type === "started") {
    const session = { ...told, started_at: told.at };
    if (!model.sessions.has(key(session))) note(model.sessions, key(session), session, MAX_KEPT);
    note(started, key(session), heard, MAX_RECENT);
    readSoon();
    ended.delete(key(session));
  }
  if (told.type === "ended" || told.type === "displaced") remove(told);
  if (told.type === "gap") refresh();
  model.events.unshift({ ...told, heard });
  model.events.length = Math.min(model.events.length, MAX_EVENTS);
  changed();
}

/** Takes a session out that has ended. */
export function remove(session) {
  model.sessions.delete(key(session));
  note(ended, key(session), Date.now(), MAX_RECENT);
  started.delete(key(session));
  changed();
}
