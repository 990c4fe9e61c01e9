// OpenAPI v2: the JSON form, and the protobuf form that kubectl before 1.27 takes, decoded by a library of its own.
import assert from 'node:assert/strict';
import { before } from 'node:test';
import { request } from 'node:https';
import protobuf from 'protobufjs';
import { Fleet, KUBECTLS } from '../e2e/lib/atoll.mjs';
import { call, credentials } from '../e2e/lib/rest.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const PROTOBUF = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';
const OLDER = 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf';
let s;
let admin;

before(async () => {
  s = await fleet.server();
  admin = await credentials(s.kubeconfig);
});

// The part of gnostic's openapiv2/OpenAPIv2.proto that is looked at here.
const { root } = protobuf.parse(`
  syntax = "proto3";
  message Any { string yaml = 2; }
  message NamedAny { string name = 1; Any value = 2; }
  message TypeItem { repeated string value = 1; }
  message ItemsItem { repeated Schema schema = 1; }
  message AdditionalPropertiesItem { Schema schema = 1; }
  message NamedSchema { string name = 1; Schema value = 2; }
  message Properties { repeated NamedSchema additional_properties = 1; }
  message Schema { string ref = 1; string format = 2; string description = 4; Any default = 5; double maximum = 7; double minimum = 9; int64 max_length = 11;
    int64 max_items = 14; repeated string required = 19; repeated Any enum = 20; AdditionalPropertiesItem additional_properties = 21; TypeItem type = 22;
    ItemsItem items = 23; Properties properties = 25; repeated NamedAny vendor_extension = 31; }
  message Query { bool required = 1; string in = 2; string name = 4; string type = 6; }
  message Path { bool required = 1; string in = 2; string name = 4; string type = 5; }
  message NonBody { Query query = 3; Path path = 4; }
  message Body { string name = 2; string in = 3; Schema schema = 5; }
  message Parameter { Body body = 1; NonBody non_body = 2; }
  message ParametersItem { Parameter parameter = 1; }
  message Operation { string operation_id = 5; repeated string consumes = 7; repeated ParametersItem parameters = 8; repeated NamedAny vendor_extension = 13; }
  message PathItem { Operation get = 2; Operation put = 3; Operation post = 4; Operation delete = 5; Operation patch = 8; repeated ParametersItem parameters = 9; }
  message NamedPathItem { string name = 1; PathItem value = 2; }
  message Paths { repeated NamedPathItem path = 2; }
  message Definitions { repeated NamedSchema additional_properties = 1; }
  message Info { string title = 1; string version = 2; }
  message Document { string swagger = 1; Info info = 2; Paths paths = 8; Definitions definitions = 9; }
`, { keepCase: true });

// {status, headers, bytes}
const bytesOf = (accept, headers = {}) =>
  new Promise((resolve, reject) => {
    const req = request(new URL('/openapi/v2', admin.url), { ca: admin.ca, cert: admin.cert, key: admin.key, headers: { Accept: accept, ...headers }, agent: false }, (res) => {
      const pieces = [];
      res.on('data', (d) => pieces.push(d));
      res.on('end', () => resolve({ status: res.statusCode, headers: res.headers, bytes: Buffer.concat(pieces) }));
    });
    req.on('error', reject);
    req.end();
  });

const named = (list) => Object.fromEntries((list ?? []).map((x) => [x.name, x.value]));
const yaml = (any) => JSON.parse(any.yaml);

// A decoded Schema as the JSON form says it.
function plain(schema) {
  const out = {};
  if (schema.ref) out.$ref = schema.ref;
  for (const key of ['format', 'description']) if (schema[key]) out[key] = schema[key];
  if (schema.type) out.type = schema.type.value[0];
  if (schema.required?.length) out.required = schema.required;
  if (schema.enum?.length) out.enum = schema.enum.map(yaml);
  if (schema.default) out.default = yaml(schema.default);
  if (schema.items) out.items = plain(schema.items.schema[0]);
  if (schema.additional_properties?.schema) out.additionalProperties = plain(schema.additional_properties.schema);
  if (schema.properties) out.properties = Object.fromEntries(Object.entries(named(schema.properties.additional_properties)).map(([k, v]) => [k, plain(v)]));
  for (const [k, v] of Object.entries(named(schema.vendor_extension))) out[k] = yaml(v);
  return out;
}

const dropped = new Set(['pattern', 'minimum', 'maximum', 'minLength', 'maxLength', 'minItems', 'maxItems']); // numbers with defaults of 0: not compared
const comparable = (v) =>
  v && typeof v === 'object' && !Array.isArray(v) ? Object.fromEntries(Object.entries(v).filter(([k, x]) => !(dropped.has(k) && typeof x !== 'object')).map(([k, x]) => [k, comparable(x)])) : v;

it('the protobuf form says what the JSON form says', async () => {
  const json = (await call(admin, 'GET', '/openapi/v2')).body;
  const { headers, bytes } = await bytesOf(OLDER);
  assert.equal(headers['content-type'], PROTOBUF);
  const doc = root.lookupType('Document').decode(bytes);
  assert.equal(doc.swagger, '2.0');
  const definitions = named(doc.definitions.additional_properties);
  assert.deepEqual(Object.keys(definitions).sort(), Object.keys(json.definitions).sort());
  for (const [name, schema] of Object.entries(definitions)) assert.deepEqual(plain(schema), comparable(json.definitions[name]), name);
  const paths = named(doc.paths.path);
  assert.deepEqual(Object.keys(paths).sort(), Object.keys(json.paths).sort());
  const patch = paths['/apis/atoll.dev/v1/namespaces/{namespace}/deployments/{name}'].patch;
  assert.deepEqual(yaml(named(patch.vendor_extension)['x-kubernetes-group-version-kind']), { group: 'atoll.dev', version: 'v1', kind: 'Deployment' });
  const query = patch.parameters.map((p) => p.parameter.non_body?.query?.name).filter(Boolean);
  assert.ok(query.includes('dryRun'), String(query)); // what kubectl looks for before a dry run
  assert.ok(patch.parameters.some((p) => p.parameter.body?.in === 'body'));
});

it('references lead somewhere, and nothing of v3 is left', async () => {
  const { definitions, paths } = (await call(admin, 'GET', '/openapi/v2')).body;
  const text = JSON.stringify({ definitions, paths });
  assert.doesNotMatch(text, /#\/components|"allOf"|"oneOf"|"requestBody"/);
  for (const [, name] of text.matchAll(/#\/definitions\/([^"]+)/g)) assert.ok(definitions[name], name);
});

it('the form is negotiated, and an unchanged document is not sent again', async () => {
  const first = await bytesOf(PROTOBUF);
  assert.equal(first.status, 200);
  const again = await bytesOf(PROTOBUF, { 'If-None-Match': first.headers.etag });
  assert.equal(again.status, 304);
  assert.equal(again.bytes.length, 0);
  assert.equal((await bytesOf('application/json')).headers['content-type'], 'application/json');
  assert.equal((await bytesOf('*/*')).headers['content-type'], 'application/json');
  assert.equal((await bytesOf('text/html')).status, 406);
});

for (const kubectl of KUBECTLS.filter((k) => k.minor < 27 || process.env.ATOLL_EVERY_KUBECTL)) {
  it(`explain documents every kind: ${kubectl.version}`, async () => {
    const env = { command: kubectl.path };
    for (const kind of (await s.k('api-resources --verbs=get --no-headers -o name')).trim().split('\n')) {
      assert.match(await s.k(`explain ${kind.split('.')[0]} --recursive`, env), /FIELDS:[^]*\bapiVersion\b[^]*\bmetadata\b/, kind);
    }
    await s.kFails('explain site.spec.colour', /does not exist/, env);
    // Its own validation, by the same schemas, before anything is sent.
    const site = (spec) => JSON.stringify({ apiVersion: 'atoll.dev/v1', kind: 'Site', metadata: { name: 'a' }, spec });
    await s.kFails('create -f -', /unknown field "colour"/, { ...env, input: site({ class: 'edge', jurisdiction: 'EU', colour: 'red' }) });
    await s.k('create -f -', { ...env, input: site({ class: 'edge', jurisdiction: 'EU' }) });
  });
}
