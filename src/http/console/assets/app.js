// The console: asks for a token where one is needed, and shows what the model knows.

import * as api from "./api.js";
import { byId, say } from "./dom.js";
import * as ending from "./ending.js";
import { showLately } from "./lately.js";
import { follow, forget, isEmpty, model, onChange, refresh, staleSince, trouble } from "./model.js";
import { showNumbers, showPlot, showReasons, showShares } from "./numbers.js";
import { text } from "./strings.js";
import { zone } from "./time.js";
import * as user from "./user.js";
import * as watching from "./watching.js";
import { showWiring } from "./wiring.js";

/** Whether the board is what is shown: the token, if one is needed, is good. */
let isOpen = false;

/** Counts the attempts to get in. */
let attempt = 0;

for (const element of document.querySelectorAll("[data-text]")) element.textContent = text[element.dataset.text];
ending.setUp();
user.setUp();
watching.setUp();
onChange(show);
setInterval(show, 1_000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = byId("token").value.trim();
  byId("token").value = "";
  if (!api.isToken(given)) return askForToken(text.notAToken);
  api.use(given);
  begin();
});
byId("sign-out").addEventListener("click", () => {
  api.use(null);
  forget();
  user.closeUser();
  askForToken("");
});
begin();

async function begin() {
  attempt += 1;
  const own = attempt;
  say(byId("sign-in-error"), "");
  try {
    model.instance = await api.call("GET", "v1/instance");
    if (own !== attempt) return;
  } catch (failure) {
    if (own !== attempt) return;
    if (failure.status === 401 || failure.status === 403) return denied(failure);
    // It may come back: the board says that there is no answer.
  }
  open();
}

function open() {
  isOpen = true;
  const { instance } = model;
  byId("signing-in").hidden = true;
  say(byId("sign-in-error"), "");
  byId("board").hidden = false;
  byId("sign-out").hidden = !api.hasToken();
  follow(denied);
  model.instance = instance;
  show();
}

function denied(failure) {
  const had = api.hasToken();
  api.use(null);
  forget();
  user.closeUser();
  if (failure.status === 401) return askForToken(had ? text.unknownToken : "");
  // Without tokens, a page that has a foreign name is told how to get in.
  askForToken(had ? text.notAnOperator : failure.message);
}

function askForToken(error) {
  isOpen = false;
  // An answer that is still on its way is about an earlier token.
  attempt += 1;
  byId("board").hidden = true;
  byId("sign-out").hidden = true;
  byId("signing-in").hidden = false;
  say(byId("sign-in-error"), error);
  byId("look-up-user").value = "";
  byId("token").focus();
  // What was shown goes, too.
  showBoard();
  show();
}

function show() {
  say(byId("zone"), zone());
  const connection = byId("connection");
  const state = staleSince() !== null && model.connection !== "lost" ? "old" : model.connection;
  connection.hidden = !isOpen;
  connection.dataset.state = state;
  say(connection, text.connection[state]);
  showStale();
  if (isOpen) showBoard();
}

function showBoard() {
  showNumbers();
  showPlot();
  watching.showWatching();
  user.showUser();
  showReasons();
  showLately();
  showShares();
  showWiring();
}

function showStale() {
  const [stale, since, wrong] = [byId("stale"), staleSince(), trouble()];
  document.body.classList.toggle("stale", isOpen && since !== null);
  stale.hidden = !isOpen || (since === null && !(isEmpty() && wrong !== ""));
  if (stale.hidden) return;
  const about = since === null ? text.staleNever : text.stale(text.span((Date.now() - since) / 1000));
  say(stale, wrong === "" ? about : about + text.because(wrong));
}
