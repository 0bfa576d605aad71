'use strict';

// node:cluster as its manual shows it: a primary that accepts, and BENCH_WORKERS workers.
const cluster = require('node:cluster');

if (cluster.isPrimary) {
  for (let number = 0; number < Number(process.env.BENCH_WORKERS); number += 1) cluster.fork();
} else {
  require('./server.js');
}
