// The store, the gateways, the certificates, and the configuration in force.

import { byId, facts, fill, h, name, say, table } from "./dom.js";
import { model } from "./model.js";
import { text } from "./strings.js";
import { age, left, shown } from "./time.js";

/** A certificate that expires within so many seconds should be looked at. */
const SOON = 14 * 86_400;

let last;
let configured;

export function showWiring() {
  const { instance, readiness } = model;
  const state = JSON.stringify([instance, readiness]);
  if (state === last) return;
  last = state;
  if (!instance) return clear();
  const found = findings(instance, readiness);
  fill(byId("findings"), found.map(([level, about]) =>
    h("li", {}, h("span", { className: `word ${level}` }, text.level[level]), name(about))));
  fill(byId("wiring-body"), store(instance.store), about(instance), gateways(instance), certificates(instance));
  showConfiguration(instance);
  say(byId("version"), text.version(instance.version, instance.instance));
}

/** Shows nothing: nobody may see it any more, or it has not been read yet. */
function clear() {
  configured = undefined;
  for (const id of ["findings", "wiring-body", "configuration-note", "configuration-body", "version"]) fill(byId(id));
}

/** What `streamgate doctor` finds, as far as one instance can tell. */
function findings({ phase, grpc, store, access_log, settings, certificates }, readiness) {
  const found = [];
  const bad = (about) => found.push(["bad", about]);
  const look = (about) => found.push(["warn", about]);
  if (readiness && !readiness.ready) look(text.notReady(phase));
  if (!store.up) bad(store.trouble ? text.storeTrouble(store.trouble) : text.storeDown);
  else if (store.trouble) look(text.storeTrouble(store.trouble));
  for (const { shard, trouble } of store.shards?.troubles ?? []) bad(text.shardTrouble(shard, trouble));
  const policies = [store.eviction_policy, ...(store.masters ?? []).map((master) => master.eviction_policy)];
  const evicting = policies.find((policy) => policy !== undefined && policy !== "noeviction");
  if (evicting) bad(text.evicts(evicting));
  if (!store.shared) look(text.ownMemory);
  if (grpc.exposed) bad(text.exposed(grpc.exposed));
  if (access_log.state === "missing") bad(text.logMissing(access_log.trouble));
  if (access_log.state === "unknown") look(text.logUnknown);
  if (settings["limits.enforce"] === "false") look(text.dryRun);
  for (const { port, expires_at } of certificates ?? []) {
    if (left(expires_at) < 0) bad(text.expired(port));
    else if (left(expires_at) < SOON) look(text.expires(port, shown(expires_at)));
  }
  return found.length === 0 ? [["good", text.allWell]] : found;
}

function store(told) {
  const { shared, up, server, shards, outage_rule, eviction_policy, masters } = told;
  const list = (masters ?? []).map((master) => h("div", {}, name(master.address)));
  return h("div", {}, h("h3", {}, text.store), facts([
    [text.storeShared, shared ? text.inRedis : text.inMemory],
    [text.storeUp, up ? text.yes : text.no],
    [text.storeServer, server && name(server)],
    [text.storeShards, shards && text.shards(shards.up, shards.known)],
    [text.storeMasters, list.length > 0 ? h("div", {}, list) : undefined],
    [text.storePolicy, eviction_policy],
    [text.storeRule, outage_rule],
  ]));
}

function about({ instance, version, phase, grpc, access_log }) {
  return h("div", {}, h("h3", {}, text.instance), facts([
    [text.id, instance], [text.versionLabel, version], [text.phase, phase], [text.grpc, grpc.listen],
    [text.accessLog, text.accessLogs[access_log.state] ?? access_log.state],
  ]));
}

function gateways({ gateways: told }) {
  if (!told) return null;
  const rows = told.map(({ node, log, last_heard_at }) => [name(node || text.unknown), name(log), text.ago(age(last_heard_at))]);
  return h("div", {}, h("h3", {}, text.gateways), rows.length === 0 ? h("p", {}, text.noGateways)
    : table(text.gateways, [[text.gateway], [text.logName], [text.lastEntry]], rows, true));
}

function certificates({ certificates: told }) {
  if (!told) return null;
  const rows = told.map(({ port, expires_at }) => [port, shown(expires_at)]);
  return h("div", {}, h("h3", {}, text.certificates), rows.length === 0 ? h("p", {}, text.noCertificates)
    : table(text.certificates, [[text.port], [text.validUntil]], rows, true));
}

function showConfiguration({ configuration, settings }) {
  const state = JSON.stringify(configuration ?? settings);
  if (state === configured) return;
  configured = state;
  const rows = configuration ?? Object.entries(settings).map(([key, value]) => ({ key, value }));
  const differing = rows.filter(({ origin }) => origin && origin.kind !== "default").length;
  say(byId("configuration-note"), configuration ? text.differs(differing) : text.configurationShared);
  const columns = [[text.key], [text.value]];
  if (configuration) columns.push([text.origin]);
  const cells = rows.map(({ key, value, origin }) => {
    const row = [h("code", {}, name(key)), h("code", {}, name(value))];
    if (configuration) row.push(from(origin));
    return row;
  });
  fill(byId("configuration-body"), table(text.configurationTitle, columns, cells, true));
}

function from({ kind, line, variable }) {
  if (kind === "file") return text.origins.file(line);
  return kind === "environment" ? text.origins.environment(variable) : text.origins.default;
}
