// Ends one stream or all of a user's, after a question, with a message for the viewer.

import * as api from "./api.js";
import { byId, say } from "./dom.js";
import { model, refresh, remove } from "./model.js";
import { text } from "./strings.js";
import { refreshUser } from "./user.js";

let act = null;

export function setUp() {
  const dialog = byId("ending");
  byId("ending-leave").addEventListener("click", () => dialog.close());
  byId("ending-do").addEventListener("click", confirmed);
  byId("ending-message").addEventListener("keydown", (event) => {
    if (event.key === "Enter") confirmed();
  });
  dialog.addEventListener("close", () => {
    act = null;
  });
}

function ask(title, about, label, does) {
  say(byId("ending-title"), title);
  say(byId("ending-about"), about);
  say(byId("ending-do"), label);
  say(byId("ending-error"), "");
  byId("ending-message").value = "";
  act = does;
  byId("ending").showModal();
  byId("ending-message").focus();
}

async function confirmed() {
  const doing = act;
  if (!doing) return;
  const button = byId("ending-do");
  button.disabled = true;
  try {
    const message = byId("ending-message").value.trim();
    const left = await doing(message === "" ? undefined : { message });
    if (left > 0) say(byId("ending-error"), text.leftRunning(left));
    else byId("ending").close();
  } catch (failure) {
    say(byId("ending-error"), failure.message);
  } finally {
    button.disabled = false;
    refresh();
    refreshUser();
  }
}

export function endOne(session) {
  const { user, session: id, kind } = session;
  ask(text.endTitle(id, user), text.endAbout, text.endDo, async (body) => {
    const address = api.path(user, "sessions", id);
    await api.call("DELETE", kind === "playback" ? address : `${address}?kind=${encodeURIComponent(kind)}`, body);
    remove(session);
    return 0;
  });
}

export function endAll(user) {
  ask(text.endAllTitle(user), text.endAllAbout, text.endAllDo, async (body) => {
    const told = await api.call("DELETE", api.path(user, "sessions"), body);
    const ended = new Set(told.ended.map(({ session, kind }) => JSON.stringify([user, kind, session])));
    for (const [key, session] of model.sessions) if (ended.has(key)) remove(session);
    return told.not_stoppable.length;
  });
}
