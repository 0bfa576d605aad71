'use strict';

// Connections that last: an upgraded one that echoes, and a stream of events; both begin by naming the process.
const http = require('node:http');

const server = http.createServer((request, response) => {
  if (request.url === '/events') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(`data: ${process.pid}\n\n`);
    const ticking = setInterval(() => response.write('data: tick\n\n'), 100);
    response.on('close', () => clearInterval(ticking));
  } else {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ pid: process.pid }));
  }
});

server.on('upgrade', (_request, socket) => {
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n${process.pid}\n`);
  socket.on('error', () => socket.destroy());
  socket.pipe(socket);
});

server.listen(3000);
