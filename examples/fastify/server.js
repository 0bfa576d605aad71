import { setTimeout as sleep } from 'node:timers/promises';

import Fastify from 'fastify';

const fastify = Fastify({ logger: true });

fastify.get('/', async () => {
  await sleep(50); // stands for the database an everyday app waits for
  return { pid: process.pid };
});

fastify.post('/echo', async (request) => {
  await sleep(50);
  return request.body;
});

fastify.get('/healthz', async () => 'ok');

await fastify.listen({ port: 3000 });
