// node-redis as applications use it: node_redis.mjs PORT RESP, with RESP 2 or 3.
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from 'redis';

const [port, RESP] = process.argv.slice(2).map(Number);
const done = (what) => console.log('ok', what);
console.log('version', JSON.parse(readFileSync(new URL('node_modules/redis/package.json', import.meta.url))).version);
const client = createClient({ socket: { port }, RESP, name: 'matrix' });
client.on('error', (error) => { console.error(error); process.exit(1); });
await client.connect();

assert.equal(await client.set('page', 'x'.repeat(100000), { expiration: { type: 'EX', value: 60 } }), 'OK');
assert.equal((await client.get('page')).length, 100000);
assert.equal(await client.set('page', 'y', { condition: 'NX' }), null);
assert.equal(await client.getEx('page', { type: 'PX', value: 30 }), 'x'.repeat(100000));
await sleep(50);
assert.equal(await client.get('page'), null);
done('cache');

assert.deepEqual([await client.incr('n'), await client.incrBy('n', 9), await client.decr('n')], [1, 10, 9]);
assert.equal(Number(await client.incrByFloat('n', 0.5)), 9.5);
done('counters');

const many = await Promise.all(Array.from({ length: 1000 }, (_, i) => client.set(`k${i}`, i)));
assert.equal(many.filter((reply) => reply === 'OK').length, 1000);
assert.deepEqual(await client.mGet(['k1', 'k999', 'k1000']), ['1', '999', null]);
let seen = 0;
for await (const keys of client.scanIterator({ MATCH: 'k99*', COUNT: 100 })) seen += keys.length;
assert.equal(seen, 11);
done('pipeline and scan');

assert.deepEqual(await client.multi().set('t', 1).incr('t').ttl('t').exec(), ['OK', 2, -1]);
await client.watch('t');
const other = await client.duplicate().connect();
await other.set('t', 10);
await assert.rejects(client.multi().set('t', 3).exec());
done('transaction');

const heard = [];
const subscriber = await client.duplicate().connect();
await subscriber.subscribe('news', (message, channel) => heard.push([channel, message]));
await subscriber.pSubscribe('weather.*', (message, channel) => heard.push([channel, message]));
assert.equal(await other.publish('news', 'hello'), 1);
assert.equal(await other.publish('weather.oslo', 'rain'), 1);
while (heard.length < 2) await sleep(5);
assert.deepEqual(heard, [['news', 'hello'], ['weather.oslo', 'rain']]);
await subscriber.unsubscribe('news');
await subscriber.pUnsubscribe('weather.*');
done('pub/sub');

assert.match(await client.info('server'), /redis_version:/);
assert.equal(await client.clientGetName(), 'matrix');
await client.select(3);
assert.equal(await client.dbSize(), 0);
done('info and select');
for (const c of [client, other, subscriber]) await c.close();
