'use strict';

// A worker's own journal, for `node --require`: when a server of this process listens, when it stops listening, and a sign of
// life every 20 ms. It changes nothing the app can see: no signal handlers, no timer that keeps the process alive, no output.
//
// WORKER_JOURNAL_DIR/PID-START.jsonl  one JSON object a line: first who this is, then {"event", "at", "port"}
// WORKER_JOURNAL_DIR/PID-START.beat   8 bytes, little-endian: the last sign of life
//
// Times are nanoseconds of CLOCK_MONOTONIC (process.hrtime), comparable between the processes of one machine.

const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');

const BEAT_MILLISECONDS = 20;

function keepJournal(folder) {
  const started = process.hrtime.bigint();
  const stem = path.join(folder, `${process.pid}-${started}`);
  const journal = fs.openSync(`${stem}.jsonl`, 'a');
  const beats = fs.openSync(`${stem}.beat`, 'w');

  const write = (record) => fs.writeSync(journal, `${JSON.stringify(record)}\n`);
  const now = () => Number(process.hrtime.bigint());

  const stamp = Buffer.alloc(8);
  const beat = () => {
    stamp.writeBigUInt64LE(process.hrtime.bigint());
    fs.writeSync(beats, stamp, 0, 8, 0);
  };

  const { env } = process;
  const fleet = Object.fromEntries(Object.entries(env).filter(([name]) => name.startsWith('FLEET_')));
  beat();
  write({ pid: process.pid, started: Number(started), argv: process.argv, env: fleet });
  setInterval(beat, BEAT_MILLISECONDS).unref();

  const { listen, close } = net.Server.prototype;
  net.Server.prototype.listen = function journaledListen(...args) {
    this.once('listening', () => {
      const address = this.address();
      write({ event: 'listening', at: now(), port: address && typeof address === 'object' ? address.port : 0 });
    });
    return Reflect.apply(listen, this, args);
  };
  net.Server.prototype.close = function journaledClose(...args) {
    write({ event: 'closing', at: now(), port: 0 });
    return Reflect.apply(close, this, args);
  };
}

// Worker threads share the process and its fate: the main thread alone keeps the journal.
if (process.env.WORKER_JOURNAL_DIR && require('node:worker_threads').isMainThread) {
  keepJournal(process.env.WORKER_JOURNAL_DIR);
}
