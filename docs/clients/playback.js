// Holds one of a user's slots while this page plays something.
export class Playback {
  #run = null; // { id, plays } from start to end
  #timer;
  #resume = false;

  // token() returns a bearer token or nothing, facts() any of device, content and position. Both are
  // called before each request.
  // on.start(id): play. on.stop(reason, displacedBy): stop.
  // on.full(sessions): return the id of the session to take over, "oldest", or nothing. May be async.
  constructor({ api, user, token = () => null, facts = () => ({}), on }) {
    Object.assign(this, { sessions: `${api}/v1/users/${encodeURIComponent(user)}/sessions`, token, facts, on });
    // The page is closed, reloaded, left, or put into the back-forward cache. When it comes back from
    // that cache, the old id has ended.
    addEventListener("pagehide", () => { this.#resume = this.#run !== null; this.release(); });
    addEventListener("pageshow", (event) => { if (event.persisted && this.#resume) this.start(); });
  }

  // Each start, and so each tab and each reload, has its own id: an ended id can't be used again.
  // (Pages without https have no crypto.randomUUID, except on localhost.)
  start() {
    this.release();
    this.#run = { id: crypto.randomUUID(), plays: false };
    return this.#beat(this.#run);
  }

  // `keepalive` lets the request outlive the page. (sendBeacon can send neither DELETE nor a token.)
  // If the request is lost, the lease runs out.
  async release() {
    const run = this.#run;
    this.#run = null;
    clearTimeout(this.#timer);
    if (run) await this.#call("DELETE", run.id, { keepalive: true }).catch(() => {});
  }

  async #beat(run, takeover) {
    const [status, told] = await this.#put(run.id, takeover);
    if (run !== this.#run) return; // released in the meantime
    if (status === 429 && told.reason === "full") {
      const chosen = await this.on.full(told.sessions ?? []);
      if (run !== this.#run) return;
      return chosen ? this.#beat(run, chosen) : this.#stop("full");
    }
    if (status >= 400 && status < 500 && status !== 408 && status !== 429) return this.#stop(told.reason ?? status, told.displaced_by);
    const counted = told.renew_after_seconds > 0; // if not: an outage, so ask again soon
    this.#timer = setTimeout(() => this.#beat(run, counted ? undefined : takeover), (counted ? told.renew_after_seconds : 5) * 1000);
    if (counted && !run.plays) { run.plays = true; this.on.start(run.id); }
  }

  async #put(id, takeover) {
    try {
      const body = JSON.stringify({ ...this.facts(), takeover });
      const answer = await this.#call("PUT", id, { body, signal: AbortSignal.timeout(5000) });
      return [answer.status, await answer.json().catch(() => ({}))];
    } catch { return [0, {}]; } // no network, or no answer in time
  }

  #call(method, id, options) {
    const headers = options.body ? { "content-type": "application/json" } : {};
    const token = this.token();
    if (token) headers.authorization = `Bearer ${token}`;
    return fetch(`${this.sessions}/${id}`, { method, headers, ...options });
  }

  #stop(reason, displacedBy) {
    this.#run = null;
    this.on.stop(reason, displacedBy);
  }
}
