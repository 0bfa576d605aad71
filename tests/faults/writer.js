'use strict';

// writer.py once more, as a Node program that has its message channel open all the time: it is ready by process.send('ready'), and a
// message it cannot send, or a channel that closes, counts as UNHEARD.

const fs = require('fs');
const path = require('path');

const LINE_BYTES = 100;
const [STARTED, BEAT, ATTEMPTED, WRITTEN, LONGEST_WRITE, TOLD, LONGEST_NOTIFY, UNHEARD, FULL] = Array(9).keys();
const TICK_MILLISECONDS = 10;
const MESSAGE_TICKS = 20;

const started = process.hrtime.bigint();
const stat = fs.readFileSync('/proc/self/stat', 'latin1');
const startTicks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
const place = ['FLEET_APP', 'FLEET_WORKER_ID', 'FLEET_GENERATION'].map((name) => process.env[name]);
const name = [...place, process.pid, startTicks].join('.');
const rate = Number(process.env.FAULTS_RATE);

const words = new BigUint64Array(9);
words[STARTED] = words[BEAT] = started;
const pause = new Int32Array(new SharedArrayBuffer(4));
// The same pipe, opened once more: a write that finds no room is counted.
const output = fs.openSync('/proc/self/fd/1', fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
const journalPath = path.join(process.env.FAULTS_JOURNAL, name);
const journal = fs.openSync(`${journalPath}.new`, 'w');
const save = () => fs.writeSync(journal, words, 0, words.byteLength, 0);
save();
fs.renameSync(`${journalPath}.new`, `${journalPath}.life`);

const write = (line) => {
  for (let full = false; ; full = true) {
    try {
      return fs.writeSync(output, line);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      if (!full) words[FULL] += 1n;
      save();
      Atomics.wait(pause, 0, 0, 5);
    }
  }
};
const longer = (word, before) => {
  const took = process.hrtime.bigint() - before;
  if (took > words[word]) words[word] = took;
};
const unheard = () => {
  words[UNHEARD] += 1n;
  save();
};

process.on('SIGTERM', () => {
  words[TOLD] = words[BEAT] = process.hrtime.bigint();
  save();
  process.exit(0);
});
process.on('disconnect', unheard);

const say = (message) => {
  if (!process.connected) return unheard();
  const before = process.hrtime.bigint();
  return process.send(message, (error) => (error ? unheard() : longer(LONGEST_NOTIFY, before)));
};
say('ready');

let number = 0;
let ticks = 0;
setInterval(() => {
  const due = Math.floor((Number(process.hrtime.bigint() - started) / 1e9) * rate);
  const most = Math.max(1, Math.floor((rate * TICK_MILLISECONDS) / 100));
  for (let left = Math.min(due - number, most); left > 0; left -= 1) {
    number += 1;
    words[ATTEMPTED] = BigInt(number);
    save();
    const before = process.hrtime.bigint();
    write(`${`${name} ${number} `.padEnd(LINE_BYTES - 1, 'x')}\n`);
    longer(LONGEST_WRITE, before);
    words[WRITTEN] = words[ATTEMPTED];
  }
  words[BEAT] = process.hrtime.bigint();
  save();
  ticks += 1;
  if (ticks % MESSAGE_TICKS === 0) say({ number });
}, TICK_MILLISECONDS);
