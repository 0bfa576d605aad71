'use strict';

// For `node --require`: every server of this process listens on a free port of loopback, whatever it asks for.
const net = require('node:net');

const { listen } = net.Server.prototype;
net.Server.prototype.listen = function listenAnywhere(_port, ...rest) {
  return Reflect.apply(listen, this, [0, '127.0.0.1', ...rest]);
};
