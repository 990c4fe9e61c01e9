// Jobs of programs that use pretended GPUs, of one instance each, on a cluster.
import { eventually } from './atoll.mjs';
import { call } from './rest.mjs';
import { probe } from './standin.mjs';

export class Jobs {
  constructor(cluster, gpus) {
    Object.assign(this, { c: cluster, gpus });
  }

  async start(name, words, { resources = { gpu: '0.25', gpuMemory: '256Mi' }, env = {}, command, gpuSharing, ...spec } = {}) {
    await this.c.server.apply({
      apiVersion: 'atoll.dev/v1',
      kind: 'Job',
      metadata: { name, namespace: 'default' },
      spec: {
        completions: 1, backoffLimit: 0,
        template: {
          spec: {
            command: command ?? [probe, 'dlsym', ...words],
            env: Object.entries({ ...this.gpus.env(), ...env }).map(([key, value]) => ({ name: key, value })),
            resources: { cpu: '10m', ...resources },
            gpuSharing,
            restartPolicy: 'Never',
            terminationGracePeriod: '1s',
            ...spec,
          },
        },
      },
    });
  }

  async instance(name) {
    return (await this.c.instances(name))[0];
  }

  async running(name) {
    return eventually(`${name} runs`, async () => {
      const i = await this.instance(name);
      return i?.status?.phase === 'Running' && i;
    });
  }

  async log(name) {
    const i = await this.instance(name);
    const answer = i && await call(this.c.url, 'GET', `/api/v1/namespaces/default/pods/${i.metadata.name}/log`);
    return answer?.status === 200 && typeof answer.body === 'string' ? answer.body : '';
  }

  async ended(name) {
    return eventually(`${name} ended`, async () => {
      const i = await this.instance(name);
      return ['Succeeded', 'Failed'].includes(i?.status?.phase) && i;
    }, { timeoutMs: 60_000 });
  }

  async said(name) {
    await this.ended(name);
    return (await this.log(name)).trim().split('\n').join(' ');
  }

  async remove(...names) {
    for (const name of names) await call(this.c.url, 'DELETE', `/apis/atoll.dev/v1/namespaces/default/jobs/${name}`);
  }
}
