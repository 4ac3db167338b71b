// Holds one of a user's slots while something plays. Nothing to install.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const API = process.env.API ?? "http://127.0.0.1:8080";
const USER = process.env.USER_ID ?? "alice";
const TOKEN = process.env.TOKEN; // from http.tokens_file, if that is set
// Whose slot to take if all are taken: a session's id, or "oldest".
const TAKEOVER = process.env.TAKEOVER;

class Playback {
  id = randomUUID(); // always a new one: an ended id can't be used again
  #over = new AbortController();

  // facts: any of device, content, position.
  constructor(user, facts = {}) {
    this.url = `${API}/v1/users/${encodeURIComponent(user)}/sessions/${this.id}`;
    this.facts = facts;
  }

  // Resolves with nothing after stop(), or with the problem document if it may not start or go on.
  // An outage stops nobody who is watching.
  async hold(takeover, onStart) {
    for (let plays = false; ;) {
      const [status, told] = await this.#call("PUT", JSON.stringify({ ...this.facts, takeover }));
      if (this.#over.signal.aborted) return undefined;
      const passing = status < 400 || status >= 500 || status === 408 || status === 429;
      if (!passing || told.reason === "full") return { status, ...told };
      const counted = told.renew_after_seconds > 0;
      if (counted && !plays) onStart();
      if (counted) [plays, takeover] = [true, undefined];
      await sleep((counted ? told.renew_after_seconds : 5) * 1000, null, { signal: this.#over.signal }).catch(() => {});
    }
  }

  stop() { this.#over.abort(); }

  async release() {
    this.stop();
    await this.#call("DELETE"); // if it is lost, the lease runs out
  }

  async #call(method, body) {
    const headers = { "content-type": "application/json" };
    if (TOKEN) headers.authorization = `Bearer ${TOKEN}`;
    try {
      const answer = await fetch(this.url, { method, headers, body, signal: AbortSignal.timeout(5000) });
      return [answer.status, await answer.json().catch(() => ({}))];
    } catch { return [0, {}]; } // no network, or no answer in time
  }
}

const playback = new Playback(USER, { device: "node", content: "film-7" });
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => playback.stop());
try {
  const problem = await playback.hold(TAKEOVER, () => console.log("playing as", playback.id)); // play from then on
  if (problem) {
    console.error(JSON.stringify(problem, null, 2));
    process.exitCode = 1;
  }
} finally {
  await playback.release();
}
