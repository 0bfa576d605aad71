'use strict';

const express = require('express');

const app = express();
const started = Date.now();

// Stands for the database an everyday app waits for.
const work = (answer) => setTimeout(answer, 50);

app.use(express.json());

app.get('/', (request, response) => {
  work(() => response.json({ pid: process.pid, uptimeSeconds: (Date.now() - started) / 1000 }));
});

app.post('/echo', (request, response) => {
  work(() => response.json(request.body));
});

app.get('/healthz', (request, response) => {
  response.send('ok');
});

app.listen(3000, () => console.log('listening on 3000'));
