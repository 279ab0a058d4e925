// What the page knows now: the run's status, kept up to date by the event stream (or by the replay).

const listeners = new Set();

export const store = {
  run: null, // fields of the status, without peers
  peers: new Map(),
  now: 0, // the server's clock when the last message was sent
  trouble: null, // why the history could not be read, if it could not
  receivedAt: 0, // this browser's clock (ms) when it came
};

export function onStatus(listener) {
  listeners.add(listener);
}

// The server's clock now, seconds; it stands still in a replay.
export function serverNow() {
  if (store.frozen) return store.now;
  return store.now + (Date.now() - store.receivedAt) / 1000;
}

export function applySnapshot({ now, status }) {
  const { peers, ...run } = status;
  store.run = run;
  store.peers = new Map(peers.map((peer) => [peer.peer_id, heard(peer, run)]));
  tell(now);
}

export function applyDelta({ now, run, peers, gone }) {
  if (!store.run) return;
  Object.assign(store.run, run);
  for (const id of gone) store.peers.delete(id);
  for (const peer of peers) store.peers.set(peer.peer_id, heard(peer, store.run));
  tell(now);
}

export function countStates() {
  const counts = { joining: 0, syncing: 0, training: 0, averaging: 0, leaving: 0, stalled: 0, lost: 0 };
  for (const peer of store.peers.values()) counts[peer.state] += 1;
  return counts;
}

// How many are there to work: who is leaving or lost is not.
export function countOnline(counts = countStates()) {
  return counts.joining + counts.syncing + counts.training + counts.averaging + counts.stalled;
}

function heard(peer, run) {
  return { ...peer, heard_at: run.generated_at - peer.last_seen };
}

function tell(now) {
  store.now = now;
  store.receivedAt = Date.now();
  for (const listener of listeners) listener(store);
}

// Again, with the same numbers: after a change of language or theme.
export function tellAgain() {
  if (store.run) for (const listener of listeners) listener(store);
}
