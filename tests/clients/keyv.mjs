// keyv with @keyv/redis as its store: keyv.mjs PORT.
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import KeyvRedis, { createKeyv } from '@keyv/redis';
import Keyv from 'keyv';

const version = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
console.log('version', version('keyv'), 'with @keyv/redis', version('@keyv/redis'));
const url = `redis://127.0.0.1:${process.argv[2]}/4`;
const users = createKeyv(url, { namespace: 'users' });
const cache = new Keyv({ store: new KeyvRedis(url), namespace: 'cache' });
for (const keyv of [users, cache]) keyv.on('error', (error) => { console.error(error); process.exit(1); });

assert.equal(await users.set('1', { name: 'alice', tags: ['a', 'b'] }), true);
assert.deepEqual(await users.get('1'), { name: 'alice', tags: ['a', 'b'] });
assert.equal(await cache.get('1'), undefined);
assert.equal(await users.has('1'), true);
assert.equal(await users.delete('1'), true);
assert.equal(await users.get('1'), undefined);
console.log('ok values in namespaces');
await cache.set('short', 1, 40);
assert.equal(await cache.get('short'), 1);
await sleep(60);
assert.equal(await cache.get('short'), undefined);
console.log('ok expiry');
await Promise.all(Array.from({ length: 200 }, (_, i) => cache.set(`k${i}`, i)));
await users.set('stays', 1);
assert.deepEqual(await cache.get(['k1', 'k199', 'k200']), [1, 199, undefined]);
await cache.clear();
assert.deepEqual([await cache.get('k1'), await users.get('stays')], [undefined, 1]);
console.log('ok many keys, and clearing a namespace');
for (const keyv of [users, cache]) await keyv.disconnect();
