'use strict';

// Answers with its pid and the moment, by CLOCK_MONOTONIC, at which it said that it was ready.
const http = require('node:http');

let ready = 0n;
const server = http.createServer((_request, response) => {
  const body = JSON.stringify({ pid: process.pid, ready: Number(ready) / 1e9 });
  response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
});
server.listen(3000, () => {
  ready = process.hrtime.bigint();
  if (process.send) process.send('ready');
});
