'use strict';

// The Express example's behaviour on Node alone, for tests that must not need npm.
const http = require('node:http');

const started = Date.now();

function send(response, status, type, body) {
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
}

const json = (response, value) => send(response, 200, 'application/json', JSON.stringify(value));

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const route = `${request.method} ${request.url}`;
    if (route === 'GET /') {
      setTimeout(() => json(response, { pid: process.pid, uptimeSeconds: (Date.now() - started) / 1000 }), 50);
    } else if (route === 'POST /echo') {
      setTimeout(() => json(response, JSON.parse(Buffer.concat(chunks).toString())), 50);
    } else if (route === 'GET /healthz') {
      send(response, 200, 'text/plain', 'ok');
    } else {
      send(response, 404, 'text/plain', 'not found');
    }
  });
});

server.listen(3000, () => console.log('listening on 3000'));
