// Runs the public test suite of HTTP caches (https://cache-tests.fyi) through a sluice with a cache.
//
//   node run.mjs SUITE SLUICE DIRECTORY PORT ADMIN ORIGIN [TEST]
//
// Every case that is required must pass. Of the others those that do not are listed below, each with the
// reason; one that is not listed and fails fails the run, too.
import { spawn } from 'node:child_process'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import fetch from 'node-fetch'
import { EXPECTED } from './expected.mjs'

const [suite, sluice, directory, port, admin, origin, only] = process.argv.slice(2)
const tests = (await import(path.join(suite, 'tests/index.mjs'))).default
const { runTests, getResults } = await import(path.join(suite, 'client/runner.mjs'))

// By choice, as the suite asks for what a cache may do: guessing, and keeping Set-Cookie. No retries, as they
// show the origin other requests than it is asked for.
const spec = `
version: 1
admin: { listen: "127.0.0.1:${admin}" }
listeners: [ { name: web, listen: "127.0.0.1:${port}" } ]
upstreams: [ { name: origin, targets: [ "127.0.0.1:${origin}" ] } ]
routes:
  - { name: config, match: { path: /config }, upstream: origin }
  - { name: state, match: { path: /state }, upstream: origin }
  - { name: cached, match: { path: / }, upstream: origin, cache: { heuristic_percent: 10, set_cookie: store }, retry: none }
`
writeFileSync(path.join(directory, 'spec.yaml'), spec)

const started = []
function start (name, program, args, options = {}) {
  const log = openSync(path.join(directory, `${name}.log`), 'w')
  started.push(spawn(program, args, { stdio: ['ignore', log, log], ...options }))
  closeSync(log)
}

async function listening (port) {
  for (let at = 0; at < 200; at++) {
    const up = await new Promise(resolve => {
      const socket = net.connect(port, '127.0.0.1')
      socket.on('connect', () => { socket.destroy(); resolve(true) })
      socket.on('error', () => resolve(false))
    })
    if (up) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error(`nobody listens on ${port}`)
}

function verdict (test, results) {
  const result = results[test.id]
  for (const id of test.depends_on || []) {
    const needed = tests.flatMap(group => group.tests).find(one => one.id === id)
    if (!needed || verdict(needed, results)[0] !== 'pass') return ['needs', id]
  }
  if (result === true) return ['pass']
  if (result === undefined) return ['untested']
  return [result[0] === 'Setup' ? 'setup' : 'fail', result[1]]
}

let wrong = 0
try {
  start('origin', process.execPath, ['--no-warnings', 'server/server.mjs'], {
    cwd: suite,
    env: {
      ...process.env,
      npm_config_protocol: 'http',
      npm_config_port: origin,
      npm_config_pidfile: path.join(directory, 'origin.pid')
    }
  })
  start('sluice', sluice, ['up', '-f', path.join(directory, 'spec.yaml'), '--state', path.join(directory, 'state'), '--shards', '2'])
  await listening(origin)
  await listening(port)
  const chosen = tests.map(group => ({ ...group, tests: group.tests.filter(test => !only || test.id === only) }))
  if (only) chosen.forEach(group => group.tests.forEach(test => { test.dump = true }))
  await runTests(chosen, fetch, false, `http://127.0.0.1:${port}`, 60)
  const results = getResults()
  const counts = {}
  for (const test of chosen.flatMap(group => group.tests)) {
    if (test.browser_only) continue
    const kind = test.kind || 'required'
    const [outcome, why] = verdict(test, results)
    counts[kind] ||= {}
    counts[kind][outcome] = (counts[kind][outcome] || 0) + 1
    // What is only looked at has no right or wrong.
    if (outcome === 'pass' || kind === 'check') {
      if (outcome === 'pass' && EXPECTED[test.id]) console.log(`passes now: ${test.id}`)
      continue
    }
    if (EXPECTED[test.id]) {
      console.log(`${kind} ${test.id}: ${outcome}, as expected: ${EXPECTED[test.id]}`)
    } else {
      wrong++
      console.log(`WRONG ${kind} ${test.id}: ${outcome}: ${why}`)
    }
  }
  for (const [kind, outcomes] of Object.entries(counts)) {
    console.log(`${kind}: ${Object.entries(outcomes).map(([outcome, count]) => `${count} ${outcome}`).join(', ')}`)
  }
} finally {
  for (const child of started) child.kill('SIGTERM')
}
process.exit(wrong ? 1 : 0)
