// ioredis as applications use it, a rate limit by INCR and EXPIRE among it: ioredis.mjs PORT.
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';

const port = Number(process.argv[2]);
const done = (what) => console.log('ok', what);
console.log('version', JSON.parse(readFileSync(new URL('node_modules/ioredis/package.json', import.meta.url))).version);
const redis = new Redis({ port, connectionName: 'matrix', db: 2, enableAutoPipelining: true });
redis.on('error', (error) => { console.error(error); process.exit(1); });

assert.equal(await redis.set('page', Buffer.alloc(100000, 7), 'PX', 60000, 'NX'), 'OK');
assert.deepEqual(await redis.getBuffer('page'), Buffer.alloc(100000, 7));
assert.equal(await redis.set('page', 'y', 'PX', 30), 'OK');
await sleep(50);
assert.equal(await redis.get('page'), null);
done('cache');

const allowed = async (who) => {
  const [[, hits]] = await redis.multi().incr(`rate:${who}`).expire(`rate:${who}`, 1, 'NX').exec();
  return hits <= 5;
};
const answers = await Promise.all(Array.from({ length: 8 }, () => allowed('bob')));
assert.equal(answers.filter(Boolean).length, 5);
assert(await allowed('alice'));
await sleep(1050);
assert(await allowed('bob'));
done('rate limit by INCR and EXPIRE');

const pipeline = redis.pipeline();
for (let i = 0; i < 1000; i++) pipeline.set(`k${i}`, i).get(`k${i}`);
const replies = await pipeline.exec();
assert.equal(replies.length, 2000);
assert(replies.every(([error, reply], i) => error === null && reply === (i % 2 ? String((i - 1) / 2) : 'OK')));
assert.deepEqual(await redis.mget('k1', 'k999', 'none'), ['1', '999', null]);
const seen = [];
for await (const keys of redis.scanStream({ match: 'k99*', count: 100 })) seen.push(...keys);
assert.equal(new Set(seen).size, 11);
done('pipeline and scan');

await redis.watch('t');
assert.deepEqual(await redis.multi().set('t', 1).incr('t').exec(), [[null, 'OK'], [null, 2]]);
await redis.watch('t');
const other = redis.duplicate();
await other.set('t', 10);
assert.equal(await redis.multi().set('t', 3).exec(), null);
const [, [wrong]] = await redis.multi().set('word', 'x').incr('word').exec();
assert.match(wrong.message, /not an integer/);
done('transaction');

const subscriber = redis.duplicate();
const heard = [];
subscriber.on('message', (channel, message) => heard.push([channel, message]));
subscriber.on('pmessage', (pattern, channel, message) => heard.push([channel, message]));
await subscriber.subscribe('news');
await subscriber.psubscribe('weather.*');
await other.publish('news', 'hello');
await other.publish('weather.oslo', 'rain');
while (heard.length < 2) await sleep(5);
assert.deepEqual(heard, [['news', 'hello'], ['weather.oslo', 'rain']]);
done('pub/sub');
for (const c of [redis, other, subscriber]) await c.quit();
