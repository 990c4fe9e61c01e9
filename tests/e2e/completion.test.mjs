// Completion in bash, zsh and fish: the same words in all three, names of objects asked of the server.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ATOLL, configMap, deployment, Fleet, run, site, yaml } from './lib/atoll.mjs';

const fleet = new Fleet();
const it = fleet.it.bind(fleet);
const s = await fleet.server();
const home = await fleet.dir('atoll-home');
const env = { KUBECONFIG: s.kubeconfig, HOME: home, PATH: `${path.dirname(ATOLL)}:${process.env.PATH}`, NO_COLOR: '1', TERM: 'dumb' };
await s.k('create namespace team');
await s.apply([site('berlin'), site('bergen'), deployment('digits'), { ...configMap('settings'), metadata: { name: 'settings', namespace: 'team' } }]);
await writeFile(path.join(home, 'berry.yaml'), yaml(site('x')));

// Each shell is asked by its own machinery; ZSH's list is taken where it would be shown.
const SHELLS = {
  bash: async (words) => {
    const script = 'cd; source <(atoll completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _atoll; printf "%s\\n" "${COMPREPLY[@]}"';
    return (await run('bash', ['-c', script, 'bash', ...words.flatMap((w) => w.split(/(=)/).filter((p, i) => p || i === 0))], { env })).out;
  },
  zsh: async (words) => {
    const script = 'cd; compdef() { :; }; _files() { print -l -- ${~:-${words[CURRENT]}*}; }; _describe() { local -a got; got=("${(@P)4}"); print -l -- ${${got//\\\\:/$\'\\1\'}%%:*}; }; source <(atoll completion zsh); words=("$@"); CURRENT=$#; _atoll';
    return (await run('zsh', ['-fc', script, 'zsh', ...words], { env })).out.replaceAll('\u0001', ':');
  },
  fish: async (words) => (await run('fish', ['--no-config', '-c', `cd; atoll completion fish | source; complete -C "${words.join(' ')}"`], { env })).out.replace(/\t.*$/gm, ''),
};

// [what is typed, what is offered (all of it, or a pattern of one of them)]
const CASES = [
  ['atoll desc', ['describe']],
  ['atoll po', ['port-forward']],
  ['atoll get dep', ['deployments']],
  ['atoll get sites ber', ['bergen', 'berlin']],
  ['atoll get site/ber', ['site/bergen', 'site/berlin']],
  ['atoll get sites,dep', ['sites,deployments']],
  ['atoll scale deployment/dig', ['deployment/digits']],
  ['atoll edit deployment dig', ['digits']],
  ['atoll get configmaps -n team set', ['settings']],
  ['atoll get configmaps -n te', ['team']],
  ['atoll get nodes --no-h', ['--no-headers']],
  ['atoll get nodes -o y', ['yaml']],
  ['atoll token create --site ber', ['bergen', 'berlin']],
  ['atoll config use-context ato', ['atoll']],
  ['atoll get nodes --context ato', ['atoll']],
  ['atoll auth can-i cre', ['create']],
  ['atoll events --for site/berl', ['site/berlin']],
  ['atoll dev --res', ['--reset']],
  ['atoll secrets rot', ['rotate-key']],
  ['atoll apply -f berr', ['berry.yaml']],
  ['atoll infer dig', ['digits']],
  ['atoll nonsense x', []],
];

for (const [shell, ask] of Object.entries(SHELLS)) {
  let missing = false;
  try {
    execFileSync(shell, ['-c', 'true'], { env, stdio: 'ignore' });
  } catch {
    missing = `${shell} is not installed`;
  }
  it(`${shell} completes verbs, kinds, names, options, values, contexts and files`, async () => {
    const answers = await Promise.all(CASES.map(async ([typed]) => (await ask(typed.split(' '))).split('\n').filter(Boolean).sort()));
    CASES.forEach(([typed, want], i) => assert.deepEqual(answers[i], want, typed));
  }, { skip: missing });
}

it('what is behind an equals sign is completed too, as each shell cuts words', async () => {
  const typed = ['atoll', 'wait', 'site/berlin', '--for=cond'];
  assert.equal((await SHELLS.bash(typed)).trim(), 'condition=');
  assert.equal((await run(ATOLL, ['__complete', ...typed.slice(1)], { env })).out, '--for=condition=\n:nospace\n');
});

it('typing never waits long, prints no errors and changes nothing when there is no server', async () => {
  const config = await fleet.file('config', 'current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]\n');
  const r = await run(ATOLL, ['__complete', 'get', 'sites', ''], { env: { ...env, KUBECONFIG: config } });
  assert.deepEqual([r.code, r.out, r.err], [0, '', '']);
});

it('the man page is one that man can show, with every verb and its examples', async () => {
  const page = await fleet.file('atoll.1', (await run(ATOLL, ['help', '--man'], { env })).out);
  const r = await run('man', ['--warnings', '-l', page], { env: { ...env, MANWIDTH: '100', LC_ALL: 'C.UTF-8' } });
  assert.equal(r.code, 0, r.err);
  assert.equal(r.err, '');
  for (const verb of ['apply', 'port-forward', 'config', 'auth']) assert.match(r.out, new RegExp(`atoll ${verb} `));
  assert.match(r.out, /atoll exec -it deployment\/digits -- sh/);
});
