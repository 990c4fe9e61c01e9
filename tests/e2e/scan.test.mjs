// atoll scan: files, folders, standard input and the live state; what each finding says; SARIF by its schema; exit status.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import Ajv from 'ajv';
import { ATOLL, Fleet, KUBECTL, ROOT, run } from './lib/atoll.mjs';
import { call, credentials } from './lib/rest.mjs';

const fleet = new Fleet();
const SARIF = createRequire(import.meta.url)('@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json');
const env = { HOME: '/nonexistent', PATH: process.env.PATH, NO_COLOR: '1' };
const scan = (args, options = {}) => run(ATOLL, ['scan', ...args], { env, ...options });

const BAD = `# a comment
apiVersion: atoll.dev/v1
kind: Deployment
metadata:
  name: bad
  namespace: team
spec:
  replicas: 2
  template:
    spec:
      image: docker://registry.example.org/a:1
      user: 1000
      resources: {cpu: 1, memory: 1Gi}
      command:
      - ./serve
      - --host=0.0.0.0
      env:
      - name: LEVEL
        value: info
      - name: DB_PASSWORD
        value: hunter22
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: r, namespace: team}
rules:
- apiGroups: [""]
  resources: [configmaps]
  verbs: ["*"]
`;

const findings = async (args, options) => {
  const r = await scan([...args, '-o', 'json'], options);
  return { ...JSON.parse(r.out), code: r.code, err: r.err };
};

fleet.it('each finding says where (file, line, field), why, and how to mend it', async () => {
  const dir = await fleet.dir('scan');
  const file = path.join(dir, 'bad.yaml');
  await writeFile(file, BAD);
  const r = await findings([file]);
  assert.equal(r.code, 1);
  const secret = r.findings.find((f) => f.rule === 'secret-in-env');
  assert.equal(secret.line, 21);
  assert.equal(secret.file, file);
  assert.equal(secret.field, 'spec.template.spec.env[1].value');
  assert.equal(`${secret.kind} ${secret.namespace}/${secret.name}`, 'Deployment team/bad');
  assert.ok(secret.why.length > 20 && secret.mend.length > 20);
  assert.equal(r.findings.find((f) => f.rule === 'open-listener').line, 16);
  assert.equal(r.findings.find((f) => f.rule === 'rbac-wildcard').line, 29);
  assert.equal(r.findings.find((f) => f.rule === 'image-without-digest').line, 11);
  assert.ok(!JSON.stringify(r).includes('hunter22'), 'a finding repeats the secret');
  const text = await scan([file]);
  assert.match(text.out, new RegExp(`^high secret-in-env  ${file}:21  Deployment team/bad  spec\\.template\\.spec\\.env\\[1\\]\\.value$`, 'm'));
  assert.match(text.out, /^ {2}why: .+\n {2}mend: .+$/m);
  assert.ok(!text.out.includes('hunter22'));
  const wide = await scan([file, '-o', 'wide']);
  assert.match(wide.out, /^SEVERITY +RULE +WHERE +OBJECT +FIELD +FINDING +SUPPRESSED +MEND/);
  assert.deepEqual((await scan([file, '-o', 'name'])).out.trim().split('\n').sort(), ['deployment.atoll.dev/bad', 'role.rbac.authorization.k8s.io/r']);
  assert.match((await scan([file, '-o', 'yaml'])).out, /^findings:$/m);
});

fleet.it('files, folders with all below them, standard input, many documents, lists', async () => {
  const dir = await fleet.dir('scan');
  await mkdir(path.join(dir, 'deep/er'), { recursive: true });
  await mkdir(path.join(dir, '.git'));
  await writeFile(path.join(dir, 'deep/er/bad.yml'), BAD);
  await writeFile(path.join(dir, '.git/bad.yaml'), BAD);
  await writeFile(path.join(dir, 'notes.txt'), 'password: x: y: [');
  await writeFile(path.join(dir, 'compose.yaml'), 'services: {a: {image: b}}\n');
  await writeFile(path.join(dir, 'pod.json'), JSON.stringify({ apiVersion: 'v1', kind: 'List', items: [{ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p', namespace: 't' }, spec: { containers: [{ name: 'c', image: 'x', securityContext: { privileged: true } }] } }] }, null, 1));
  const r = await findings([dir]);
  assert.equal(r.files, 3);
  assert.ok(r.findings.some((f) => f.file.endsWith('deep/er/bad.yml')));
  assert.ok(!r.findings.some((f) => f.file.includes('.git')));
  const privileged = r.findings.find((f) => f.rule === 'privileged');
  assert.equal(privileged.field, 'items[0].spec.containers[0].securityContext.privileged');
  assert.equal(privileged.severity, 'critical');
  assert.equal(r.findings[0], r.findings.find((f) => f.severity === 'critical')); // severe ones first
  const stdin = await findings(['-'], { input: BAD });
  assert.equal(stdin.findings.find((f) => f.rule === 'secret-in-env').file, 'stdin');
  assert.equal(stdin.findings.find((f) => f.rule === 'secret-in-env').line, 21);
  const f = await findings(['-f', path.join(dir, 'pod.json'), '-f', path.join(dir, 'deep')]);
  assert.equal(f.files, 2);
});

fleet.it('the exit status is for pipelines: --fail-on, and what cannot be read is told apart', async () => {
  const low = 'apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n';
  assert.equal((await scan(['-'], { input: low })).code, 0);
  assert.equal((await scan(['-', '--fail-on', 'low'], { input: low })).code, 1);
  assert.equal((await scan(['-', '--fail-on', 'critical'], { input: BAD })).code, 0);
  assert.equal((await scan(['-', '--fail-on', 'none'], { input: BAD })).code, 0);
  const odd = await scan(['-', '--fail-on', 'sometimes'], { input: BAD });
  assert.equal(odd.code, 2);
  assert.match(odd.err, /choose low, medium, high, critical or none/);
  assert.equal((await scan([])).code, 2);
  const dir = await fleet.dir('scan');
  await writeFile(path.join(dir, 'a.yaml'), 'a: [b\n');
  await writeFile(path.join(dir, 'b.yaml'), BAD);
  const broken = await scan([dir]);
  assert.equal(broken.code, 2);
  assert.match(broken.err, /a\.yaml.*line/);
  assert.match(broken.out, /secret-in-env/); // the others are looked at all the same
  const missing = await scan(['/no/such/file.yaml']);
  assert.equal(missing.code, 2);
  assert.match(missing.err, /No such file/);
  const empty = await scan([await fleet.dir('scan')]);
  assert.equal(empty.code, 2);
  assert.match(empty.err, /no \.yaml, \.yml or \.json file/);
  assert.equal((await scan(['-', '-o', 'xml'], { input: BAD })).code, 2);
});

fleet.it('a suppression with a reason takes a finding out of the count, and SARIF says so', async () => {
  const quiet = BAD.replace('  namespace: team\n', '  namespace: team\n  annotations:\n    scan.atoll.dev/ignore-secret-in-env: a test value, see the README\n    scan.atoll.dev/ignore-open-listener: ""\n');
  const r = await findings(['-'], { input: quiet });
  assert.equal(r.suppressed, 1);
  assert.equal(r.findings.find((f) => f.rule === 'secret-in-env').suppressed, 'a test value, see the README');
  assert.equal(r.findings.find((f) => f.rule === 'open-listener').suppressed, undefined);
  assert.ok(r.findings.some((f) => f.rule === 'suppression-without-reason'));
  assert.doesNotMatch((await scan(['-'], { input: quiet })).out, /secret-in-env/);
});

fleet.it('SARIF 2.1.0, by its schema', async () => {
  const dir = await fleet.dir('scan');
  await mkdir(path.join(dir, 'with space'));
  await writeFile(path.join(dir, 'with space/bäd.yaml'), BAD.replace('  namespace: team\n', '  namespace: team\n  annotations: {scan.atoll.dev/ignore-open-listener: inside a mesh}\n'));
  const r = await scan(['./with space', '-o', 'sarif'], { cwd: dir });
  assert.equal(r.code, 1, r.err);
  const log = JSON.parse(r.out);
  const ajv = new Ajv({ schemaId: 'auto', allErrors: true });
  ajv.addMetaSchema(createRequire(import.meta.url)('ajv/lib/refs/json-schema-draft-04.json'));
  const valid = ajv.validate(SARIF, log);
  assert.ok(valid, JSON.stringify(ajv.errors, null, 1));
  const [{ results, tool }] = log.runs;
  const secret = results.find((x) => x.ruleId === 'secret-in-env');
  assert.equal(secret.level, 'error');
  assert.equal(secret.locations[0].physicalLocation.artifactLocation.uri, 'with%20space/b%C3%A4d.yaml');
  assert.equal(secret.locations[0].physicalLocation.region.startLine, 22);
  assert.equal(tool.driver.rules[secret.ruleIndex].id, 'secret-in-env');
  const suppressed = results.find((x) => x.ruleId === 'open-listener');
  assert.deepEqual(suppressed.suppressions, [{ kind: 'inSource', justification: 'inside a mesh' }]);
  assert.ok(new Set(results.map((x) => x.partialFingerprints['atollScan/v1'])).size === results.length);
  // No findings: still a log.
  const none = JSON.parse((await scan(['-', '-o', 'sarif'], { input: 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n' })).out);
  assert.ok(ajv.validate(SARIF, none));
  assert.deepEqual(none.runs[0].results, []);
});

fleet.it('certificates that end soon, have ended, or are weak', async () => {
  const dir = await fleet.dir('scan');
  const make = async (name, days, key = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']) => {
    const file = path.join(dir, `${name}.pem`);
    const r = await run('openssl', ['req', '-x509', '-newkey', ...key, '-nodes', '-keyout', path.join(dir, 'key'), '-out', file, '-days', String(days), '-subj', `/CN=${name}.example.org`]);
    assert.equal(r.code, 0, r.err);
    return readFile(file, 'utf8');
  };
  const secret = (name, pem) => ({ apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace: 'team' }, type: 'kubernetes.io/tls', data: { 'tls.crt': Buffer.from(pem).toString('base64') } });
  const soon = await make('soon', 10);
  const later = await make('later', 400);
  const r = await findings(['-'], {
    input: [secret('soon', soon), secret('later', later), secret('chain', later + soon), secret('weak', await make('weak', 400, ['rsa:1024'])), { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'ca', namespace: 'team' }, data: { 'ca.crt': soon } }].map((o) => JSON.stringify(o)).join('\n---\n'),
  });
  const of = (name, rule) => r.findings.filter((f) => f.name === name && f.rule === rule);
  assert.match(of('soon', 'certificate-expiring')[0].message, /soon\.example\.org ends in (9|10) days/);
  assert.equal(of('later', 'certificate-expiring').length, 0);
  assert.equal(of('chain', 'certificate-expiring').length, 1);
  assert.equal(of('ca', 'certificate-expiring').length, 1);
  assert.match(of('weak', 'certificate-weak')[0].message, /1024 bits/);
});

fleet.it('--rules lists them, and the reference is that list', async () => {
  const rules = JSON.parse((await scan(['--rules', '-o', 'json'])).out);
  assert.ok(rules.length > 40);
  for (const rule of rules) assert.ok(rule.why && rule.mend && ['low', 'medium', 'high', 'critical'].includes(rule.severity), rule.name);
  assert.match((await scan(['--rules'])).out, /^RULE +SEVERITY +FINDS/);
  assert.equal((await scan(['--rules', '-o', 'markdown'])).out, await readFile(path.join(ROOT, 'docs/reference/scan-rules.md'), 'utf8'));
});

fleet.it('the live state, through the API, with the rights that one has', async () => {
  const server = await fleet.server();
  await server.k('create namespace team');
  await server.k(['apply', '-f', '-'], { input: BAD });
  await server.k('create secret generic plain --from-literal=a=b -n team');
  const live = { env: { ...env, KUBECONFIG: server.kubeconfig } };
  const r = await findings(['--live'], live);
  assert.equal(r.code, 1);
  const secret = r.findings.find((f) => f.rule === 'secret-in-env');
  assert.equal(secret.name, 'bad');
  assert.equal(secret.file, undefined);
  assert.ok(r.findings.some((f) => f.rule === 'namespace-without-quota' && f.name === 'team'));
  assert.ok(!r.findings.some((f) => f.rule === 'secret-in-file'), 'what is live is in no file');
  assert.ok(!r.findings.some((f) => f.kind === 'ClusterRole' && /^(cluster-admin|admin|edit|view)$/.test(f.name)), 'built-in roles are not anybody\'s mistake');
  assert.match((await scan(['--live'], live)).out, /^high secret-in-env  live  Deployment team\/bad  /m);
  const one = await findings(['--live', '-n', 'default'], live);
  assert.ok(!one.findings.some((f) => f.name === 'bad'));
  const nobody = await scan(['--live', '--as', 'nobody'], live);
  assert.notEqual(nobody.code, 0, 'nothing looked at is not nothing found');
  assert.match(nobody.err, /nothing could be looked at: .*--namespace/);
  await server.k('create quota q --hard=count/jobs.atoll.dev=3 -n team');
  const after = await findings(['--live', '-n', 'team'], live);
  assert.ok(!after.findings.some((f) => f.rule === 'namespace-without-quota' && f.name === 'team'));
});

// A certificate of the authority in a server's state folder, from so many days ago to so many from now.
async function dated(server, dir, name, ago, left, extension) {
  const at = (file) => path.join(dir, file);
  const day = (n) => new Date(Date.now() + n * 86_400_000).toISOString().replace(/[-:T]|\.\d+/g, '');
  const openssl = async (...args) => { const r = await run('openssl', args); assert.equal(r.code, 0, r.err); };
  await writeFile(at('ca.cnf'), `[ca]\ndefault_ca = d\n[d]\nnew_certs_dir = ${dir}\ndatabase = ${at('index')}\ndefault_md = sha256\nrand_serial = yes\npolicy = p\n[p]\norganizationName = optional\ncommonName = supplied\n`);
  await writeFile(at('ext'), `${extension}\n`);
  await writeFile(at('index'), '');
  await openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at(`${name}.key`), '-out', at('csr'), '-subj', `/O=system:masters/CN=${name}`);
  await openssl('ca', '-batch', '-notext', '-config', at('ca.cnf'), '-cert', path.join(server.state, 'pki/ca.crt'), '-keyfile', path.join(server.state, 'pki/ca.key'), '-in', at('csr'), '-out', at(`${name}.crt`), '-startdate', day(-ago), '-enddate', day(left), '-extfile', at('ext'));
  return [at(`${name}.crt`), at(`${name}.key`)];
}

fleet.it('the live state is also the connection: certificates of the kubeconfig in use and of the server that end soon', async () => {
  const server = await fleet.server();
  const dir = await fleet.dir('dated');
  const config = path.join(dir, 'kubeconfig');
  const about = (list) => list.findings.filter((f) => f.rule === 'certificate-expiring' && f.kind === 'Config').map((f) => `${f.severity} ${f.field} ${f.message}`);
  assert.deepEqual(about(await findings(['--live'], { env: { ...env, KUBECONFIG: server.kubeconfig } })), []);
  const [cert, key] = await dated(server, dir, 'olga', 300, 10.5, 'extendedKeyUsage=clientAuth');
  const [tlsCert, tlsKey] = await dated(server, dir, 'shown', 300, 3.5, 'extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost');
  const k = async (...args) => { const r = await run(KUBECTL, ['--kubeconfig', config, 'config', ...args]); assert.equal(r.code, 0, r.err); };
  const use = async (url) => {
    await k('set-cluster', 'c', `--server=${url}`, `--certificate-authority=${path.join(server.state, 'pki/ca.crt')}`, '--embed-certs');
    await k('set-credentials', 'u', `--client-certificate=${cert}`, `--client-key=${key}`);
    await k('set-context', 'x', '--cluster=c', '--user=u');
    await k('use-context', 'x');
    return about(await findings(['--live'], { env: { ...env, KUBECONFIG: config } }));
  };
  assert.deepEqual(await use(server.url), ['medium user.client-certificate-data the certificate olga ends in 10 days']);
  await server.stop();
  server.args = [...server.args ?? [], '--tls-cert', tlsCert, '--tls-key', tlsKey, '--tls-ca', path.join(server.state, 'pki/ca.crt')];
  await server.start();
  assert.deepEqual((await use(server.url)).sort(), ['medium server.certificate the certificate shown ends in 3 days', 'medium user.client-certificate-data the certificate olga ends in 10 days']);
});

const bad = (name, ns, env = [{ name: 'DB_PASSWORD', value: 'hunter22' }], more = {}) => ({ apiVersion: 'atoll.dev/v1', kind: 'Deployment', metadata: { name, namespace: ns, ...more }, spec: { replicas: 0, template: { spec: { command: ['sleep', '1000'], resources: { cpu: '10m', memory: '16Mi' }, env } } } });

fleet.it('admission: off, warn and enforce, by the server\'s option and by labels of namespaces', async () => {
  const server = await fleet.server({ args: ['--scan', 'warn', '--scan-exempt-namespace', 'free', '--scan-exempt-user', 'breakglass', '--scan-exempt-rule', 'rbac-exec'] });
  for (const ns of ['warned', 'strict', 'quiet', 'free', 'mild']) await server.k(`create namespace ${ns}`);
  await server.k('label namespace strict scan.atoll.dev/mode=enforce');
  await server.k('label namespace quiet scan.atoll.dev/mode=off');
  await server.k('label namespace mild scan.atoll.dev/enforce=critical scan.atoll.dev/warn=off');
  const create = (object, ...args) => server.kubectl(['create', '--validate=false', '-f', '-', ...args], { input: JSON.stringify(object) });
  // warn: kubectl prints the warning, and it is made.
  const warned = await create(bad('a', 'warned'));
  assert.equal(warned.code, 0, warned.err);
  assert.match(warned.err, /^Warning: scan: high secret-in-env at spec\.template\.spec\.env\[0\]\.value: DB_PASSWORD: .*secretKeyRef/m);
  assert.ok(!warned.err.includes('hunter22'));
  // off, and exempt namespaces: nothing is said.
  for (const ns of ['quiet', 'free']) {
    const r = await create(bad('a', ns));
    assert.equal(r.code, 0, r.err);
    assert.doesNotMatch(r.err, /scan/);
  }
  // enforce: 403, with what, where and how to mend it; nothing is made; a dry run says the same.
  for (const args of [[], ['--dry-run=server']]) {
    const r = await create(bad('a', 'strict'), ...args);
    assert.notEqual(r.code, 0);
    assert.match(r.err, /Error from server \(Forbidden\).*deployments\.atoll\.dev "a" is forbidden: scan found 1 thing.*secret-in-env \(high\) at spec\.template\.spec\.env\[0\]\.value.*secretKeyRef/);
    assert.ok(!r.err.includes('hunter22'));
  }
  const admin = await credentials(server.kubeconfig);
  const raw = await call(admin, 'POST', '/apis/atoll.dev/v1/namespaces/strict/deployments', bad('a', 'strict'));
  assert.equal(raw.status, 403);
  assert.deepEqual(raw.body.details.causes.map((c) => [c.reason, c.field]), [['secret-in-env', 'spec.template.spec.env[0].value']]);
  await server.kFails('get deployments.atoll.dev a -n strict', /not found/);
  // Every way to write it: apply, patch, replace.
  await server.kFails(['apply', '--server-side', '-f', '-'], /secret-in-env/, { input: JSON.stringify(bad('a', 'strict')) });
  assert.equal((await create(bad('a', 'strict', []))).code, 0);
  await server.kFails(['patch', 'deployments.atoll.dev', 'a', '-n', 'strict', '--type=merge', '-p', '{"spec":{"template":{"spec":{"env":[{"name":"API_KEY","value":"0123456789abcdef"}]}}}}'], /secret-in-env/);
  await server.kFails(['create', 'configmap', 'c', '--from-literal=password=hunter22', '-n', 'strict'], /secret-in-config/);
  await server.kFails(['create', 'role', 'r', '--verb=*', '--resource=configmaps', '-n', 'strict'], /rbac-wildcard/);
  // What was there before stays changeable, as long as it gets no worse.
  await server.k('label namespace warned scan.atoll.dev/mode=enforce');
  await server.k('scale deployments.atoll.dev a --replicas=1 -n warned');
  await server.k('label deployments.atoll.dev a x=y -n warned');
  await server.kFails(['patch', 'deployments.atoll.dev', 'a', '-n', 'warned', '--type=merge', '-p', '{"spec":{"template":{"spec":{"env":[{"name":"DB_PASSWORD","value":"hunter22"},{"name":"API_KEY","value":"0123456789abcdef"}]}}}}'], /secret-in-env.*API_KEY/);
  // Levels of their own; suppressions with a reason; exempt users and rules.
  const mild = await create(bad('a', 'mild'));
  assert.equal(mild.code, 0);
  assert.equal(mild.err, '');
  await server.kFails(['create', '-f', '-', '--validate=false'], /private key/, { input: JSON.stringify(bad('b', 'mild', [{ name: 'X', value: '-----BEGIN ' + 'PRIVATE KEY-----\nabc' }])) });
  assert.equal((await create(bad('s', 'strict', undefined, { annotations: { 'scan.atoll.dev/ignore-secret-in-env': 'a value of the test' } }))).code, 0);
  await server.k('create clusterrolebinding bg --clusterrole=edit --user=breakglass');
  assert.equal((await create(bad('u', 'strict'), '--as', 'breakglass')).code, 0);
  // Whoever only has rights in a namespace cannot label it free.
  await server.k('create rolebinding ed --clusterrole=admin --user=ed -n strict');
  await server.kFails('label namespace strict --overwrite scan.atoll.dev/mode=off --as ed', /cannot (get|patch)/);
  await server.kFails('label namespace strict --overwrite scan.atoll.dev/mode=loud', /supported values: off, warn, enforce/);
  await server.stop();
});

fleet.it('admission for the whole server: enforce, without suppressions; odd options are refused', async () => {
  const server = await fleet.server({ args: ['--scan', 'enforce', '--scan-enforce', 'medium', '--scan-no-suppressions'] });
  const r = await server.kubectl(['create', '-f', '-'], { input: JSON.stringify({ apiVersion: 'atoll.dev/v1', kind: 'Job', metadata: { name: 'j', namespace: 'default', annotations: { 'scan.atoll.dev/ignore-missing-limits': 'why not' } }, spec: { template: { spec: { command: ['true'] } } } }) });
  assert.match(r.err, /missing-limits \(medium\)/);
  await server.kFails(['create', 'clusterrolebinding', 'x', '--clusterrole=view', '--group=system:unauthenticated'], /rbac-everybody \(critical\)/);
  await server.k('create configmap fine --from-literal=a=b');
  await server.stop();
  for (const args of [['--scan', 'loud'], ['--scan-warn', 'x'], ['--scan-exempt-rule', 'no-such-rule']]) {
    const odd = await run(ATOLL, ['server', '--state', await fleet.dir('atoll-odd'), '--listen', '127.0.0.1:0', ...args]);
    assert.equal(odd.code, 2, odd.err);
    assert.match(odd.err, /choose|no such rule/);
  }
});
