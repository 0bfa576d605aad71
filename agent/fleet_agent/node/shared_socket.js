'use strict';
// Listen mode `socket`: a listening socket that the supervisor bound and all workers of the app inherit. Here: is it there, how
// does it reach the program below `npm start`, and how does a worker stop accepting before it ends.

const POOL_MS = 1_000; // a pooled connection's last chance to carry a request whose answer says `Connection: close`
const IDLE_MS = 100;

/** The number of the inherited socket, or undefined. A process that was not given it tells its children of none. */
function inherited(env, port, isListener) {
  const fd = Number(env.FLEET_LISTEN_FD);
  if (!env.FLEET_LISTEN_FD || !Number.isInteger(fd)) return undefined;
  if (require('cluster').isWorker || isListener(fd, port)) return fd; // of a cluster worker the primary has it
  delete env.FLEET_LISTEN_FD;
  return undefined;
}

/**
 * Hands the socket on to child processes that share this one's standard streams: npm, yarn and the like start the program so, and
 * give it nothing else. Other children are told of none. Ends once `isTaken()`.
 */
function passOn(fd, isTaken) {
  const childProcess = require('child_process');
  const spawn = childProcess.spawn;
  childProcess.spawn = function (command, ...rest) {
    const at = rest.findIndex((value) => value !== null && typeof value === 'object' && !Array.isArray(value));
    const options = at < 0 ? {} : rest[at];
    const stdio = options.stdio === 'inherit' ? [0, 1, 2] : options.stdio;
    const env = { ...(options.env || process.env) };
    let given;
    if (isTaken() || env.NODE_UNIQUE_ID !== undefined) return spawn.call(this, command, ...rest);
    if (Array.isArray(stdio) && stdio.length === 3 && fd === 3 && stdio.every(isShared)) {
      given = { ...options, stdio: [...stdio, fd] };
    } else {
      delete env.FLEET_LISTEN_FD;
      given = { ...options, env };
    }
    const others = at < 0 ? rest : [...rest.slice(0, at), ...rest.slice(at + 1)];
    return spawn.call(this, command, ...others, given);
  };
  require('module').syncBuiltinESMExports();
}

function isShared(value, index) {
  return value === 'inherit' || value === index;
}

/**
 * Stops accepting, lets every connection end, and then sends this process the signal it would have got: what it does on that
 * signal it does with no request left. A program that listens to messages is left to its own ways.
 */
function drain(server, signal) {
  if (process.listenerCount('message') > 0 || !server.listening) return;
  server.prependListener('request', (request, response) => {
    response.shouldKeepAlive = false;
  });
  // net's close(): http's would close pooled connections at once, with a request perhaps on its way.
  require('net').Server.prototype.close.call(server, () => process.kill(process.pid, signal));
  if (typeof server.closeIdleConnections !== 'function') return;
  setTimeout(() => setInterval(() => server.closeIdleConnections(), IDLE_MS), POOL_MS);
}

module.exports = { inherited, passOn, drain };
