// A drawing area for pointer and keyboard, white on black; holds an uploaded picture as well.

const PEN = 52; // of the 320 that the area is wide
const STEP = 16;

export class Pad {
  constructor(canvas, changed) {
    Object.assign(this, { canvas, changed, at: null, cursor: { x: 160, y: 160 }, drawn: false, keys: false });
    this.paper = Object.assign(document.createElement('canvas'), { width: canvas.width, height: canvas.height });
    this.clear(false);
    canvas.addEventListener('pointerdown', (e) => this.#down(e));
    canvas.addEventListener('pointermove', (e) => this.#move(e));
    for (const name of ['pointerup', 'pointercancel', 'lostpointercapture']) canvas.addEventListener(name, () => this.#up());
    canvas.addEventListener('keydown', (e) => this.#key(e));
    canvas.addEventListener('blur', () => { this.keys = false; this.#show(); });
  }

  #pen() {
    const g = this.paper.getContext('2d', { willReadFrequently: true });
    Object.assign(g, { lineWidth: PEN, lineCap: 'round', lineJoin: 'round', strokeStyle: '#fff', fillStyle: '#fff' });
    return g;
  }

  #line(from, to) {
    if (this.isPhoto) this.clear(false);
    const g = this.#pen();
    g.beginPath();
    g.moveTo(from.x, from.y);
    g.lineTo(to.x, to.y + 0.01);
    g.stroke();
    this.drawn = true;
    this.#show();
  }

  #where(e) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((e.clientX - box.left) / box.width) * this.canvas.width, y: ((e.clientY - box.top) / box.height) * this.canvas.height };
  }

  #down(e) {
    if (e.button !== 0) return;
    e.preventDefault();
    this.canvas.focus();
    this.canvas.setPointerCapture(e.pointerId);
    this.keys = false;
    this.at = this.#where(e);
    this.#line(this.at, this.at);
  }

  #move(e) {
    if (!this.at) return;
    for (const one of e.getCoalescedEvents?.() ?? [e]) {
      const to = this.#where(one);
      this.#line(this.at, to);
      this.at = to;
    }
    const to = this.#where(e);
    this.#line(this.at, to);
    this.at = to;
  }

  #up() {
    if (!this.at) return;
    this.at = null;
    this.changed('drawn');
  }

  #key(e) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    if (!move || e.ctrlKey || e.altKey || e.metaKey) return;
    e.preventDefault();
    const clamp = (n) => Math.max(PEN / 2, Math.min(this.canvas.width - PEN / 2, n));
    const to = { x: clamp(this.cursor.x + move[0] * STEP), y: clamp(this.cursor.y + move[1] * STEP) };
    this.keys = true;
    if (e.shiftKey) {
      this.#line(this.cursor, to);
      this.changed('drawn');
    }
    this.cursor = to;
    this.#show();
  }

  #show() {
    const g = this.canvas.getContext('2d');
    g.drawImage(this.paper, 0, 0);
    if (this.keys) {
      Object.assign(g, { strokeStyle: '#2dd4bf', lineWidth: 3 });
      g.beginPath();
      g.arc(this.cursor.x, this.cursor.y, PEN / 2, 0, 7);
      g.stroke();
    }
  }

  clear(tell = true) {
    const g = this.#pen();
    g.fillStyle = '#000';
    g.fillRect(0, 0, this.paper.width, this.paper.height);
    Object.assign(this, { photo: null, drawn: false });
    this.#show();
    if (tell) this.changed('cleared');
  }

  get isPhoto() {
    return this.photo != null;
  }

  get isEmpty() {
    return !this.drawn && !this.photo;
  }

  // picture: ImageData or the like; shown whole.
  setPhoto(picture) {
    this.clear(false);
    this.photo = picture;
    const scratch = Object.assign(document.createElement('canvas'), { width: picture.width, height: picture.height });
    scratch.getContext('2d').putImageData(picture instanceof ImageData ? picture : new ImageData(picture.data, picture.width, picture.height), 0, 0);
    const scale = Math.min(this.paper.width / picture.width, this.paper.height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    const g = this.#pen();
    g.imageSmoothingEnabled = scale < 4; // a picture of few pixels is shown as such
    g.drawImage(scratch, (this.paper.width - w) / 2, (this.paper.height - h) / 2, w, h);
    this.#show();
    this.changed('photo');
  }

  // What the model is to see: RGBA.
  picture() {
    return this.photo ?? this.#pen().getImageData(0, 0, this.paper.width, this.paper.height);
  }
}
