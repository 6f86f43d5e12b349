// The live connection: subscribes again after every reconnect, counts references, reports gaps and its age.
// One connection to /api/stream serves the whole page.

const RETRY_MIN_MS = 500, RETRY_MAX_MS = 10_000;

export class Feed {
  constructor(url) {
    this.url = url;
    this.handlers = new Map();   // channel -> Set of functions
    this.statusHandlers = new Set();
    this.retryMs = RETRY_MIN_MS;
    this.status = { open: false, lastFrame: 0, gaps: 0 };
    this.connect();
  }

  connect() {
    const socket = new WebSocket(this.url, ["stream.v1"]);
    this.socket = socket;
    socket.onopen = () => {
      this.retryMs = RETRY_MIN_MS;
      this.tell({ open: true });
      const channels = [...this.handlers.keys()];
      if (channels.length) this.send({ op: "subscribe", channels });
    };
    socket.onmessage = (event) => {
      this.status.lastFrame = Date.now();
      const message = JSON.parse(event.data);
      if (message.method === "subscription") {
        const { channel, data, seq, snapshot } = message.params;
        for (const handler of this.handlers.get(channel) ?? []) handler(data, { seq, snapshot });
      } else if (message.type === "gap") {
        this.tell({ gaps: this.status.gaps + message.dropped });
      } else if (message.type === "error") {
        console.warn("gateway:", message.code, message.error);
      }
    };
    socket.onclose = () => {
      this.tell({ open: false });
      setTimeout(() => this.connect(), this.retryMs);
      this.retryMs = Math.min(this.retryMs * 2, RETRY_MAX_MS);
    };
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /// Calls handler(data, {seq, snapshot}); gives back a function that ends it.
  on(channel, handler) {
    let set = this.handlers.get(channel);
    if (!set) {
      this.handlers.set(channel, set = new Set());
      this.send({ op: "subscribe", channels: [channel] });
    }
    set.add(handler);
    return () => {
      set.delete(handler);
      if (set.size === 0 && this.handlers.get(channel) === set) {
        this.handlers.delete(channel);
        this.send({ op: "unsubscribe", channels: [channel] });
      }
    };
  }

  onStatus(handler) {
    this.statusHandlers.add(handler);
    handler(this.status);
    return () => this.statusHandlers.delete(handler);
  }

  tell(change) {
    this.status = { ...this.status, ...change };
    for (const handler of this.statusHandlers) handler(this.status);
  }
}

export async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

/// A symbol as one channel token: every byte outside [A-Za-z0-9_-] becomes =XX.
export function token(symbol) {
  return [...new TextEncoder().encode(symbol)]
    .map((b) => { const c = String.fromCharCode(b); return /[A-Za-z0-9_-]/.test(c) ? c : "=" + b.toString(16).toUpperCase().padStart(2, "0"); })
    .join("") || "=";
}
