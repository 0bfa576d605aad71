'use strict';

// Answers with its pid and two moments by CLOCK_MONOTONIC: when it said that it was ready, and when it got this request.
const http = require('node:http');

let ready = 0n;
const server = http.createServer((_request, response) => {
  const at = Number(process.hrtime.bigint()) / 1e9;
  const body = JSON.stringify({ pid: process.pid, ready: Number(ready) / 1e9, at });
  response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
});
server.listen(3000, () => {
  ready = process.hrtime.bigint();
  if (process.send) process.send('ready');
});
