// A web server whose sessions connect-redis keeps, asked over HTTP: express.mjs PORT.
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { RedisStore } from 'connect-redis';
import express from 'express';
import session from 'express-session';
import { createClient } from 'redis';

const version = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
console.log('version', version('connect-redis'), 'with express-session', version('express-session'));
const client = await createClient({ socket: { port: Number(process.argv[2]) } }).connect();
const store = new RedisStore({ client, prefix: 'web:', ttl: 100 });
const app = express();
app.use(session({ store, secret: 'test', resave: false, saveUninitialized: false }));
app.get('/', (request, response) => {
  request.session.visits = (request.session.visits ?? 0) + 1;
  response.json(request.session.visits);
});
app.get('/logout', (request, response) => request.session.destroy(() => response.json('bye')));
const server = app.listen(0, '127.0.0.1');
await new Promise((resolve) => server.once('listening', resolve));
const url = `http://127.0.0.1:${server.address().port}`;

const first = await fetch(url);
const headers = { cookie: first.headers.get('set-cookie').split(';')[0] };
const ask = async (path) => (await fetch(url + path, { headers })).json();
assert.deepEqual([await first.json(), await ask('/'), await ask('/'), await (await fetch(url)).json()], [1, 2, 3, 1]);
console.log('ok sessions over HTTP');
const keys = await client.keys('web:*');
assert.equal(keys.length, 2);
assert((await client.ttl(keys[0])) > 90);
assert.equal((await new Promise((resolve, reject) => store.all((e, all) => (e ? reject(e) : resolve(all))))).length, 2);
console.log('ok expiry and listing');
assert.equal(await ask('/logout'), 'bye');
assert.equal(await ask('/'), 1);
console.log('ok logout');
server.close();
server.closeAllConnections();
await client.close();
