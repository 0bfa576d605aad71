'use strict';

// GET / names the process, POST /echo gives back what it got; after BENCH_DELAY_MS, or BENCH_BUSY_US of computing.
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const delayMs = Number(process.env.BENCH_DELAY_MS || 0);
const busyNs = BigInt(process.env.BENCH_BUSY_US || 0) * 1000n;
const inherited = Number(process.argv[2] || process.env.BENCH_FD || 0);

function compute() {
  const until = process.hrtime.bigint() + busyNs;
  while (process.hrtime.bigint() < until);
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const body = request.method === 'POST' ? Buffer.concat(chunks) : JSON.stringify({ pid: process.pid });
    const answer = () => {
      response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
      response.end(body);
    };
    if (busyNs) compute();
    if (delayMs) setTimeout(answer, delayMs);
    else answer();
  });
});

const where = inherited ? { fd: inherited } : { host: process.env.HOST || '127.0.0.1', port: Number(process.env.PORT || 0) };
server.listen(where, () => {
  const address = server.address();
  const text = address ? `${address.address}:${address.port}` : '';
  fs.writeFileSync(path.join(process.env.BENCH_ANNOUNCE, String(process.pid)), text);
});
