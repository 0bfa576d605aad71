'use strict';

// The plain server, in the mood that MOOD names: for revisions that are broken each in a way of its own.
//
// MOOD=crash   ends at boot, with a reason on stderr
// MOOD=silent  never listens
// MOOD=sick    listens, but its /healthz answers 500
// MOOD=dies    is fine for LIFE_MS (5000), then ends
// BOOT_MS      milliseconds before it listens; the other moods keep to it as well

const http = require('node:http');

const { MOOD = 'good', BOOT_MS = '0', LIFE_MS = '5000' } = process.env;

if (MOOD === 'crash') {
  console.error('cannot boot: the configuration names no database');
  process.exit(3);
}
if (MOOD === 'sick') {
  const { createServer } = http;
  http.createServer = (handler) => createServer((request, response) => {
    if (request.url === '/healthz') {
      response.writeHead(500).end('the database is away');
    } else {
      handler(request, response);
    }
  });
}
if (MOOD === 'dies') {
  setTimeout(() => {
    console.error('out of luck');
    process.exit(7);
  }, Number(LIFE_MS) + Number(BOOT_MS));
}
if (MOOD === 'silent') {
  console.log('thinking');
  setInterval(() => {}, 1000);
} else {
  setTimeout(() => require('./plain_server.js'), Number(BOOT_MS));
}
