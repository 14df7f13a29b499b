// A real OpenID provider (oidc-provider) and a real browser (Chromium) against a real sluice:
// discovery, access tokens, a change of keys, introspection, client credentials, login and logout.
//
//   node run.mjs SLUICE CHROMIUM DIRECTORY PORTS...
import { spawn } from 'node:child_process';
import { createWriteStream, writeFileSync } from 'node:fs';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';
import puppeteer from 'puppeteer-core';

const [sluice, chromium, directory, ...ports] = process.argv.slice(2);
const [gatewayPort, adminPort, providerPort, originPort] = ports.map(Number);
const gateway = `http://localhost:${gatewayPort}`;
const issuer = `http://localhost:${providerPort}`;
const audience = 'urn:sluice:orders';
// Sessions are refreshed ten seconds ahead of this.
const ACCESS_TOKEN_S = 14;

// ---------------------------------------------------------------- the provider

async function keys(kid) {
    const make = async (alg) => {
        const { privateKey } = await generateKeyPair(alg, { extractable: true });
        return { ...(await exportJWK(privateKey)), kid: `${kid}-${alg}`, alg, use: 'sig' };
    };
    return { keys: [await make('ES256'), await make('RS256')] };
}

const assertionKey = await generateKeyPair('ES256', { extractable: true });
const counts = { token: 0, introspection: 0, refresh: 0, jwks: 0 };
let provider;

// Each time with new keys, which need new names.
async function startProvider(kid) {
    const machine = { redirect_uris: [], response_types: [], grant_types: ['client_credentials'] };
    const oidc = new Provider(issuer, {
        clients: [
            { ...machine, client_id: 'machine', client_secret: 'machine-secret' },
            {
                ...machine,
                client_id: 'gateway',
                token_endpoint_auth_method: 'private_key_jwt',
                token_endpoint_auth_signing_alg: 'ES256',
                jwks: { keys: [{ ...(await exportJWK(assertionKey.publicKey)), kid: 'g' }] },
            },
            {
                client_id: 'web',
                client_secret: 'web secret: with+signs%',
                grant_types: ['authorization_code', 'refresh_token'],
                redirect_uris: [`${gateway}/oauth2/callback`],
                post_logout_redirect_uris: [`${gateway}/public`],
                id_token_signed_response_alg: 'ES256',
            },
        ],
        clientBasedCORS: () => false,
        cookies: { keys: ['for tests only'] },
        claims: { openid: ['sub', 'email'] },
        conformIdTokenClaims: false,
        findAccount: (_, id) => ({
            accountId: id,
            claims: () => ({ sub: id, email: `${id}@example.test` }),
        }),
        features: {
            clientCredentials: { enabled: true },
            devInteractions: { enabled: true },
            introspection: { enabled: true, allowedPolicy: () => true },
            resourceIndicators: {
                enabled: true,
                defaultResource: () => undefined,
                getResourceServerInfo: () => ({
                    scope: 'orders:read orders:write',
                    audience,
                    accessTokenFormat: 'jwt',
                    accessTokenTTL: 600,
                    jwt: { sign: { alg: 'ES256' } },
                }),
            },
            rpInitiatedLogout: {
                enabled: true,
                // Without a question in between.
                logoutSource: (ctx, form) => {
                    ctx.body = `<html><body onload="document.forms[0].submit()">${form}
                        <input form="op.logoutForm" name="logout" value="yes"/></body></html>`;
                },
            },
        },
        issueRefreshToken: async (_, client) => client.grantTypeAllowed('refresh_token'),
        jwks: await keys(kid),
        scopes: ['openid', 'offline_access', 'orders:read', 'orders:write'],
        ttl: { AccessToken: ACCESS_TOKEN_S, ClientCredentials: 600, IdToken: 600, RefreshToken: 3600 },
    });
    oidc.on('grant.success', (ctx) => {
        if (ctx.oidc.params.grant_type === 'refresh_token') counts.refresh += 1;
    });
    oidc.on('grant.error', (ctx, error) => console.error('grant', ctx.oidc.params?.grant_type, error));
    const callback = oidc.callback();
    provider = http.createServer((request, response) => {
        if (request.url === '/token') counts.token += 1;
        if (request.url === '/token/introspection') counts.introspection += 1;
        if (request.url === '/jwks') counts.jwks += 1;
        callback(request, response);
    });
    await new Promise((done) => provider.listen(providerPort, '127.0.0.1', done));
}

async function stopProvider() {
    provider.closeAllConnections();
    await new Promise((done) => provider.close(done));
}

async function token(parameters) {
    const answer = await fetch(`${issuer}/token`, {
        method: 'POST',
        headers: { authorization: `Basic ${btoa('machine:machine-secret')}` },
        body: new URLSearchParams({ grant_type: 'client_credentials', ...parameters }),
    });
    const object = await answer.json();
    if (!object.access_token) throw new Error(`no token: ${JSON.stringify(object)}`);
    return object.access_token;
}

// ---------------------------------------------------------------- origin and gateway

const origin = http.createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ url: request.url, headers: request.headers }));
});
await new Promise((done) => origin.listen(originPort, '127.0.0.1', done));

const { privateKey } = assertionKey;
const pem = (await import('node:crypto')).KeyObject.from(privateKey);
const secretly = { mode: 0o600 };
writeFileSync(`${directory}/assertion.key`, pem.export({ type: 'pkcs8', format: 'pem' }), secretly);
writeFileSync(`${directory}/web.secret`, 'web secret: with+signs%\n', secretly);
writeFileSync(`${directory}/oidc.yaml`, `
version: 1
admin: { listen: "127.0.0.1:${adminPort}" }
listeners: [ { name: web, listen: "127.0.0.1:${gatewayPort}" } ]
consumers:
  - { name: machine }
  - { name: ann, groups: [ people ], subjects: [ { authenticator: browser, value: ann } ] }
groups: [ { name: people } ]
authenticators:
  - name: tokens
    jwt:
      { issuer: "${issuer}", discovery: true, allow_private: true, audiences: [ "${audience}" ],
        access_token: true, consumer_claim: client_id, claim_headers: { client_id: x-client } }
  - name: opaque
    introspection:
      { issuer: "${issuer}", discovery: true, allow_private: true, audiences: any, consumer_claim: client_id,
        client: { id: gateway, method: private_key_jwt, key: assertion.key, kid: g } }
  - name: browser
    login:
      { issuer: "${issuer}", discovery: true, allow_private: true, after_logout: /public, forward_token: true,
        client: { id: web, secret: { file: web.secret } }, scopes: [ openid, offline_access ] }
upstreams:
  - { name: origin, targets: [ "127.0.0.1:${originPort}" ] }
  - name: protected
    targets: [ "127.0.0.1:${originPort}" ]
    credentials:
      { discovery: "${issuer}/.well-known/openid-configuration", allow_private: true, audience: "${audience}",
        client: { id: gateway, method: private_key_jwt, key: assertion.key, kid: g }, scopes: [ "orders:read" ] }
routes:
  - { name: public, match: { path: /public }, upstream: origin }
  - { name: tokens, match: { path: /tokens }, upstream: origin, auth: tokens }
  - { name: write, match: { path: /write }, upstream: origin, auth: { any: [ tokens ], scopes: [ "orders:write" ] } }
  - { name: opaque, match: { path: /opaque }, upstream: origin, auth: opaque }
  - { name: app, match: { path: /app }, upstream: origin, auth: { any: [ browser ], hide_credentials: true } }
  - { name: protected, match: { path: /protected }, upstream: protected }
`);

await startProvider('first');
const log = createWriteStream(`${directory}/sluice.log`);
const child = spawn(sluice, ['up', '-f', `${directory}/oidc.yaml`, '--state', `${directory}/state`, '--shards', '2']);
child.stdout.pipe(log);
child.stderr.pipe(log);

let failures = 0;
let passed = 0;
function check(what, holds, more = '') {
    holds ? (passed += 1) : (failures += 1);
    console.log(`${holds ? 'ok    ' : 'FAILED'} ${what}${holds || !more ? '' : `: ${more}`}`);
}

const get = (path, fields = {}) => fetch(gateway + path, { headers: fields, redirect: 'manual' });
// As old browsers do it; fetch says that it is none.
const navigate = (path) => new Promise((done, failed) => {
    http.get(gateway + path, { headers: { accept: 'text/html' } }, (answer) => done(answer.resume())).on('error', failed);
});
const bearer = (token) => ({ authorization: `Bearer ${token}` });

async function until(what, holds, ms = 15_000) {
    const end = Date.now() + ms;
    while (Date.now() < end) {
        try {
            if (await holds()) return true;
        } catch { /* not yet */ }
        await sleep(100);
    }
    check(what, false, `not within ${ms} ms`);
    return false;
}

async function tokens() {
    const jwt = await token({ resource: audience, scope: 'orders:read' });
    const answer = await get('/tokens', bearer(jwt));
    const seen = answer.status === 200 ? (await answer.json()).headers : {};
    check('an access token by discovered keys is taken', answer.status === 200, `${answer.status}`);
    check('the upstream is told who calls', seen['x-consumer-id'] === 'machine' && seen['x-client'] === 'machine');
    const none = await get('/tokens', { 'x-client': 'forged', 'x-consumer-id': 'forged' });
    check('none is answered 401 with a challenge', none.status === 401 && /^Bearer/.test(none.headers.get('www-authenticate')));
    const half = jwt.slice(0, -8) + 'AAAAAAAA';
    const bad = await get('/tokens', bearer(half));
    check('a forged one is answered 401 invalid_token', bad.status === 401 && /invalid_token/.test(bad.headers.get('www-authenticate')));
    const scope = await get('/write', bearer(jwt));
    check('without the scope it is 403', scope.status === 403 && /insufficient_scope/.test(scope.headers.get('www-authenticate')));
    const writer = await token({ resource: audience, scope: 'orders:read orders:write' });
    check('with the scope it is 200', (await get('/write', bearer(writer))).status === 200);
}

async function rotation() {
    await stopProvider();
    const old = counts.jwks;
    const still = await get('/public');
    check('the gateway goes on while the provider is away', still.status === 200);
    await startProvider('third');
    // A fetch that was just made is not made again before its time.
    await sleep(10_500);
    const jwt = await token({ resource: audience, scope: 'orders:read' });
    const answers = await Promise.all(Array.from({ length: 20 }, () => get('/tokens', bearer(jwt))));
    const statuses = answers.map((answer) => answer.status);
    check('a token of a new key is taken at once', statuses.every((status) => status === 200), statuses.join(' '));
    check('for one fetch', counts.jwks - old === 1, `${counts.jwks - old} fetches`);
    const before = counts.jwks;
    const header = btoa(JSON.stringify({ alg: 'ES256', kid: 'nobody', typ: 'at+jwt' })).replace(/=+$/, '');
    const [, claims, signature] = jwt.split('.');
    const forged = Array.from({ length: 50 }, () => get('/tokens', bearer(`${header}.${claims}.${signature}`)));
    const refused = (await Promise.all(forged)).every((answer) => answer.status === 401);
    check('unknown keys are refused', refused);
    check('and do not have keys fetched each time', counts.jwks - before <= 1, `${counts.jwks - before} fetches`);
}

async function introspection() {
    const opaque = await token({});
    const before = counts.introspection;
    const answers = await Promise.all(Array.from({ length: 40 }, () => get('/opaque', bearer(opaque))));
    check('an opaque token is taken', answers.every((answer) => answer.status === 200), answers.map((a) => a.status).join(' '));
    check('for one question to the provider', counts.introspection - before === 1, `${counts.introspection - before}`);
    const unknown = await get('/opaque', bearer('made-up'));
    check('one that is not active is 401', unknown.status === 401);
    await stopProvider();
    const other = await get('/opaque', bearer('never-seen'));
    check('without the provider an unknown one is 503', other.status === 503, `${other.status}`);
    check('and a known one goes on', (await get('/opaque', bearer(opaque))).status === 200);
    await startProvider('second');
}

async function credentials() {
    const answer = await get('/protected', { authorization: 'Bearer of-the-client' });
    const seen = answer.status === 200 ? (await answer.json()).headers.authorization ?? '' : '';
    const parts = seen.replace(/^Bearer /, '').split('.');
    const claims = parts.length === 3 ? JSON.parse(Buffer.from(parts[1], 'base64url')) : {};
    check('the upstream gets a token of the gateway', claims.client_id === 'gateway' && claims.aud === audience, seen || `${answer.status}`);
    const before = counts.token;
    await Promise.all(Array.from({ length: 40 }, () => get('/protected')));
    check('which is kept', counts.token === before);
}

async function login() {
    const script = await get('/app/data', { accept: 'application/json' });
    check('a script without a session gets 401', script.status === 401);
    const first = await navigate('/app/data?x=1');
    const location = new URL(first.headers.location ?? 'http://none');
    check('a navigation is sent to the provider', first.statusCode === 302 && location.origin === issuer);
    check('with PKCE and a nonce', location.searchParams.get('code_challenge_method') === 'S256' && location.searchParams.has('nonce'));
    const stolen = await get(`/oauth2/callback?code=x&state=${location.searchParams.get('state')}`);
    check('a callback without its cookie is refused', stolen.status === 401);

    const browser = await puppeteer.launch({
        executablePath: chromium,
        args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
        userDataDir: `${directory}/browser`,
    });
    try {
        const page = await browser.newPage();
        await page.goto(`${gateway}/app/page?x=1&y=%20z`, { waitUntil: 'networkidle0' });
        check('the browser sees the login', page.url().startsWith(`${issuer}/interaction/`), page.url());
        await page.type('input[name=login]', 'ann');
        await page.type('input[name=password]', 'any');
        const submit = () => Promise.all([
            page.waitForNavigation({ waitUntil: 'networkidle0' }),
            page.click('button[type=submit]'),
        ]);
        await submit();
        if (page.url().startsWith(`${issuer}/interaction/`)) await submit();
        check('and comes back to where it wanted to go', page.url() === `${gateway}/app/page?x=1&y=%20z`, page.url());
        const seen = async () => JSON.parse(await page.evaluate(() => document.body.innerText)).headers;
        const headers = await seen();
        check('as ann, of the group people', headers['x-consumer-id'] === 'ann' && headers['x-consumer-groups'] === 'people', JSON.stringify(headers));
        check('the upstream gets the access token', /^Bearer ./.test(headers.authorization ?? ''));
        check('but not the session', !/sluice_session/.test(headers.cookie ?? ''));
        const cookies = (await browser.cookies()).filter((cookie) => cookie.name.startsWith('sluice_session'));
        check('the session is no business of scripts', cookies.length > 0 && cookies.every((cookie) => cookie.httpOnly && cookie.sameSite === 'Lax'));
        check('and cannot be read', cookies.every((cookie) => !cookie.value.includes('ann') && !cookie.value.startsWith('ey')));

        await sleep((ACCESS_TOKEN_S - 9) * 1000);
        const [oldToken, before] = [headers.authorization, counts.refresh];
        const statuses = await page.evaluate(() => Promise.all(
            Array.from({ length: 12 }, () => fetch('/app/part').then((answer) => answer.status)),
        ));
        check('a session that is over is refreshed', statuses.every((status) => status === 200), statuses.join(' '));
        check('once for all requests', counts.refresh - before === 1, `${counts.refresh - before}`);
        await page.goto(`${gateway}/app/again`, { waitUntil: 'networkidle0' });
        check('to a new access token', page.url() === `${gateway}/app/again` && (await seen()).authorization !== oldToken);

        await page.goto(`${gateway}/oauth2/logout`, { waitUntil: 'networkidle0' });
        await until('the logout ends where it should', async () => page.url() === `${gateway}/public`, 5_000);
        check('a logout goes to the provider and back', page.url() === `${gateway}/public`, page.url());
        await page.goto(`${gateway}/app/page`, { waitUntil: 'networkidle0' });
        check('after which a login is needed', page.url().startsWith(`${issuer}/interaction/`), page.url());
    } finally {
        await browser.close();
    }
}

try {
    if (await until('sluice serves', async () => (await get('/public')).status === 200, 60_000)) {
        for (const suite of [tokens, credentials, introspection, login, rotation]) {
            try {
                await suite();
            } catch (error) {
                check(suite.name, false, error.stack);
            }
        }
    }
} finally {
    child.kill('SIGTERM');
    await Promise.race([new Promise((done) => child.once('exit', done)), sleep(10_000)]);
    provider.closeAllConnections();
}
console.log(`${passed} passed, ${failures} failed`);
process.exit(failures === 0 && passed > 0 ? 0 : 1);
