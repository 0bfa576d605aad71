'use strict';
// The way to the supervisor for a process whose parent is not the supervisor, as below `npm start`: a socket at FLEET_CHANNEL, one
// JSON value a line. It is opened when first used, comes back after a supervisor's death, and keeps no program alive but one
// that listens to messages, as with a channel of Node's own.

const RETRY_MS = 200;
const MAX_WAITING = 1000; // messages, while no supervisor lives

class Line {
  constructor(path) {
    this.path = path;
    this.hearers = [];
    this.socket = undefined;
    this.waiting = [];
    this.lasting = []; // said again to the next supervisor
    this.kept = false;
    this.closed = false;
  }

  /** Call `hearer(message)` for each message from now on. */
  hear(hearer) {
    this.hearers.push(hearer);
    this.open();
  }

  /** False where it could not be kept for sending. */
  send(message, { lasting = false } = {}) {
    const text = `${JSON.stringify(message)}\n`;
    if (lasting && !this.lasting.includes(text)) this.lasting.push(text);
    this.open();
    if (this.socket && !this.socket.connecting) return this.socket.write(text);
    if (lasting) return true;
    if (this.closed || this.waiting.length >= MAX_WAITING) return false;
    this.waiting.push(text);
    return true;
  }

  /** Shall it keep the process alive? */
  keep(kept) {
    this.kept = kept;
    if (this.socket) kept ? this.socket.ref() : this.socket.unref();
  }

  close() {
    this.closed = true;
    this.waiting = [];
    if (this.socket) this.socket.destroy();
  }

  open() {
    if (this.socket || this.closed) return;
    const socket = (this.socket = require('net').connect(this.path));
    let rest = '';
    this.keep(this.kept);
    socket.setEncoding('utf8');
    socket.on('connect', () => {
      for (const text of [...this.lasting, ...this.waiting.splice(0)]) socket.write(text);
    });
    socket.on('data', (data) => {
      const lines = (rest + data).split('\n');
      rest = lines.pop();
      for (const line of lines) this.take(line);
    });
    socket.on('error', () => {}); // `close` follows
    socket.on('close', () => {
      this.socket = undefined;
      const again = setTimeout(() => this.open(), RETRY_MS);
      if (!this.kept) again.unref();
    });
  }

  take(line) {
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      return;
    }
    for (const hearer of this.hearers) hearer(message);
  }
}

/** Gives a process without a channel of Node's the `process.send()` and the 'message' event of one. */
function standIn(line) {
  process.connected = true;
  process.send = function send(message, ...rest) {
    const callback = rest.find((value) => typeof value === 'function');
    const error = process.connected ? null : Object.assign(new Error('Channel closed'), { code: 'ERR_IPC_CHANNEL_CLOSED' });
    const taken = !error && line.send(message, { lasting: message === 'ready' });
    if (callback) process.nextTick(callback, error);
    else if (error) process.nextTick(() => process.emit('error', error));
    return taken;
  };
  process.disconnect = function disconnect() {
    if (!process.connected) return;
    process.connected = false;
    line.close();
    process.nextTick(() => process.emit('disconnect'));
  };
  let heard = false;
  process.on('newListener', (name) => {
    if (name !== 'message') return;
    if (!heard) line.hear((message) => process.emit('message', message, undefined));
    heard = true;
    line.keep(true);
  });
  process.on('removeListener', (name) => {
    if (name === 'message' && process.listenerCount('message') === 0) line.keep(false);
  });
}

module.exports = { Line, standIn };
