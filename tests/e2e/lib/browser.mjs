// Debian's Chromium, without a window, driven by playwright-core.
import { existsSync } from 'node:fs';
import { after } from 'node:test';

const CHROMIUM = [process.env.ATOLL_CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((file) => file && existsSync(file));
export const noBrowser = CHROMIUM ? false : 'no Chromium here: tools/install-deps test';

const open = [];
after(() => Promise.all(open.map((it) => it.close())));

// Closed after the file's last test.
export async function browser() {
  const { chromium } = await import('playwright-core');
  const it = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--no-proxy-server'] });
  open.push(it);
  return it;
}

// A page that remembers what went wrong in it: errors of scripts, refusals by the page's policy, requests to anywhere else.
export async function pageOf(instance, options = {}) {
  const context = await instance.newContext({ viewport: { width: 1380, height: 860 }, ...options });
  const page = await context.newPage();
  page.wrong = [];
  page.on('pageerror', (error) => page.wrong.push(String(error)));
  page.on('console', (line) => {
    if (line.type() === 'error' && !/Failed to load resource/.test(line.text())) page.wrong.push(line.text());
  });
  page.on('request', (request) => {
    if (options.origin && !/^(blob|data):/.test(request.url()) && new URL(request.url()).origin !== options.origin) page.wrong.push(`asked ${request.url()}`);
  });
  page.setDefaultTimeout(15_000);
  return page;
}
