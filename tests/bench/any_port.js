'use strict';

// For `node --require`: every server of this process listens on loopback, at BENCH_PORT or else a free port, whatever it asks for.
const net = require('node:net');

const { listen } = net.Server.prototype;
net.Server.prototype.listen = function listenAnywhere(_port, ...rest) {
  return Reflect.apply(listen, this, [Number(process.env.BENCH_PORT || 0), '127.0.0.1', ...rest]);
};
