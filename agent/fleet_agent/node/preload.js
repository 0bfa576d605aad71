'use strict';
// Loaded before a Node worker's own code (`--require` in NODE_OPTIONS, which reaches ES modules, child processes and worker
// threads as well): lets an unmodified program run beside others of its kind. Node 18 or later, no dependencies. Without
// FLEET_PORT, FLEET_ADDRESS and FLEET_CHANNEL in the environment it does nothing.
//
// What it changes: one listen() of the program goes to FLEET_ADDRESS:FLEET_PORT instead of where its source says, or, with
// FLEET_LISTEN_FD, to the listening socket that was inherited under that number (shared_socket.js).
//   - With FLEET_DECLARED_PORT: the listen() on that port, or on FLEET_PORT itself.
//   - Without: the first listen() on a TCP port in this process tree; once anything listens on FLEET_PORT it has happened, so
//     child processes, metrics servers and the like keep the ports they ask for. `npm start` listens on nothing, so the
//     first listen is the program's own. With an inherited socket: the first listen() of the process that has it.
// What it leaves alone: port 0 (the program asks for any port, never a well-known one), unix sockets, handles and descriptors,
// and all later listens.
// node:cluster: the listen() of every cluster worker is mapped alike, so the primary binds the assigned port once and shares it,
// as the program meant; it stays one endpoint.
// With FLEET_CHANNEL a process without a channel of Node's own gets one (messages.js), and one that shares a socket says
// "listening", and drains on the message "shutdown". It installs no signal handler and writes nothing.

const KEEP_ALIVE_MS = 75_000; // longer than a balancer keeps an idle connection pooled, or a request meets a closing socket
const HEADERS_MS = KEEP_ALIVE_MS + 1_000; // Node's manual: headersTimeout above keepAliveTimeout

const MAX_BACKLOG = 65_535; // the kernel takes net.core.somaxconn: a shared socket keeps the backlog it was bound with

const channel = process.env.FLEET_CHANNEL;
const assigned = assignment(process.env);
let line; // to the supervisor, beside a channel of Node's own
if (channel && !process.send && require('worker_threads').isMainThread) require('./messages.js').standIn(openLine());
if (assigned) mapListen(assigned);

function openLine() {
  const { Line } = require('./messages.js');
  return (line = line || new Line(channel));
}

/** What this worker was given, or undefined outside of a fleet. */
function assignment(env) {
  const port = toPort(env.FLEET_PORT);
  if (!port || !env.FLEET_ADDRESS) return undefined;
  const fd = env.FLEET_LISTEN_FD ? require('./shared_socket.js').inherited(env, port, isListener) : undefined;
  return { port, address: env.FLEET_ADDRESS, declared: toPort(env.FLEET_DECLARED_PORT), fd };
}

function mapListen(assigned) {
  const net = require('net');
  const listen = net.Server.prototype.listen;
  let holder; // the server of this process (or worker thread) that was mapped
  if (assigned.fd !== undefined) require('./shared_socket.js').passOn(assigned.fd, () => holder !== undefined);

  net.Server.prototype.listen = function (...args) {
    const wanted = portOf(args);
    // A server that tries again after EADDRINUSE is still the one.
    if (!wanted || !(this === holder || isOurs(wanted, assigned, holder))) return listen.apply(this, args);
    holder = this;
    const options = placed(optionsOf(args), assigned);
    outliveThePool(this);
    const callback = args[args.length - 1];
    const server = typeof callback === 'function' ? listen.call(this, options, callback) : listen.call(this, options);
    // What the program sets right after listen(): by `listening` that has run.
    this.once('listening', () => {
      outliveThePool(this);
      if (assigned.fd !== undefined && channel) tell(this);
    });
    this.once('close', () => {
      if (holder === this) holder = undefined;
    });
    return server;
  };
}

/** Where the listen() goes, with what else it was told. */
function placed(options, assigned) {
  if (assigned.fd !== undefined) {
    delete process.env.FLEET_LISTEN_FD; // child processes shall not take it for theirs
    const { port, host, ...others } = options;
    return { ...others, fd: assigned.fd, backlog: MAX_BACKLOG };
  }
  const { ipv6Only, ...others } = options; // EINVAL on an IPv4 address
  return { ...others, port: assigned.port, host: assigned.address };
}

/** Says that the program listens on the socket it shares, and hears when it shall drain: of a cluster its primary decides. */
function tell(server) {
  openLine().send('listening', { lasting: true });
  if (require('cluster').isWorker) return;
  const signal = Number(process.env.FLEET_STOP_SIGNAL) || 'SIGTERM';
  line.hear((message) => {
    if (message === 'shutdown') require('./shared_socket.js').drain(server, signal);
  });
}

/** Is a listen() on `wanted` the one this worker is reached at? */
function isOurs(wanted, assigned, holder) {
  if (assigned.declared) return wanted === assigned.declared || wanted === assigned.port;
  if (holder) return wanted === assigned.port;
  if (require('cluster').isWorker || assigned.fd !== undefined) return true;
  return wanted === assigned.port || !isListenedOn(assigned.port);
}

/** The TCP port the arguments of listen() ask for; 0: none, or any. As net.Server.listen reads them. */
function portOf(args) {
  const first = args[0];
  if (first !== null && typeof first === 'object') {
    // A handle, a socket or a descriptor to listen on is not a port.
    if (first._handle || first.fd !== undefined || first.path !== undefined || isHandle(first)) return 0;
    return toPort(first.port);
  }
  return typeof first === 'number' || typeof first === 'string' ? toPort(first) : 0;
}

function isHandle(value) {
  return typeof value.listen === 'function' || typeof value.getsockname === 'function';
}

/** Everything listen() was told but port and address. */
function optionsOf(args) {
  const first = args[0];
  if (first !== null && typeof first === 'object') return first;
  // (port, host, backlog), (port, backlog)
  const backlog = args.slice(1).find((value) => typeof value === 'number');
  return backlog === undefined ? {} : { backlog };
}

/** Raises the timeouts of an http or https server; never lowers one, and leaves 0, which means none. */
function outliveThePool(server) {
  if (isShorter(server.keepAliveTimeout, KEEP_ALIVE_MS)) server.keepAliveTimeout = KEEP_ALIVE_MS;
  if (isShorter(server.headersTimeout, HEADERS_MS)) server.headersTimeout = HEADERS_MS;
}

function isShorter(value, than) {
  return typeof value === 'number' && value > 0 && value < than;
}

/** Does any process listen on `port`? Where that cannot be told, the answer is no. */
function isListenedOn(port) {
  return hasListener(port, () => true);
}

/** Is the descriptor `fd` of this process a socket that listens on `port`? */
function isListener(fd, port) {
  let link;
  try {
    link = require('fs').readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return false;
  }
  return hasListener(port, (inode) => link === `socket:[${inode}]`);
}

/** Is there a socket that listens on `port` and whose inode is `wanted`? From /proc (man 5 proc). */
function hasListener(port, wanted) {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return ['/proc/self/net/tcp', '/proc/self/net/tcp6'].some((path) => {
    let table;
    try {
      table = require('fs').readFileSync(path, 'latin1');
    } catch {
      return false; // no /proc, or a kernel without IPv6
    }
    return table.split('\n').some((line) => {
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
      return state === '0A' && local.endsWith(suffix) && wanted(inode);
    });
  });
}

/** A port number from 1 to 65535 out of a number or its text, else 0. */
function toPort(value) {
  const port = typeof value === 'string' && value.trim() === '' ? 0 : Number(value);
  return Number.isInteger(port) && port > 0 && port < 65_536 ? port : 0;
}
