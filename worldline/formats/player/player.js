// The player: a picture of the scene, a bar with its controls, and what mouse, touch and keys do.
function mountPlayer(host, header, base64, assets) {
  const root = host.shadowRoot || host.attachShadow({ mode: "open" });
  root.innerHTML = `<style>${assets.style}</style>${assets.markup}`;
  const $ = (name) => root.querySelector(`[data-part="${name}"]`);
  const frame = $("frame"), canvas = $("canvas"), slider = $("time"), playButton = $("play"), followButton = $("follow"), pathButton = $("path");
  $("title").textContent = header.title;
  $("note").textContent = header.note;
  canvas.setAttribute("aria-label", `${header.title}: a 4D scene of ${header.count.toLocaleString("en")} Gaussians. The help lists the keys.`);

  function giveUp(sentence) {
    $("message").textContent = sentence;
    $("message").hidden = false;
    frame.classList.add("failed");
    return { failed: sentence, ready: Promise.resolve(false) };
  }
  let drawing = null;
  try {
    drawing = createDrawing(canvas, assets.shaders);
  } catch (error) {
    return giveUp(`This browser's WebGL2 cannot draw the scene (${error.message}). Another browser or a newer graphics driver may.`);
  }
  if (!drawing) return giveUp("This scene is drawn with WebGL2, which this browser does not have or has switched off. A current Firefox, Chrome, Edge or Safari shows it.");

  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(base64) : Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const cameras = header.cameras;
  const path = cameras ? createPath(cameras) : null;
  const still = header.end <= header.start;
  const [first, last] = still && path ? [path.times[0], path.times[path.times.length - 1]] : [header.start, header.end];
  const timed = last > first;

  // --- What is shown -----------------------------------------------------------------------------------------------------
  const orbit = createOrbit(header.up);
  let time = header.shown ?? first, shownTime = time, playing = false, speed = 1, following = false, showPath = false;
  let fixed = null;     // a view that a script asked for
  let share = 1;        // of the screen's pixels drawn while things move, where drawing is slow
  let dirty = true, near = 0.01, middle = 1, number = 0, answered = 0, busy = false, asked = "";
  let waiting = [];

  function lensFor(width, height) {
    const [fx, fy, cx, cy, w, h] = header.lens;
    const scale = Math.min(width / w, height / h);
    return [scale * fx, scale * fy, 0.5 * width + scale * (cx - 0.5 * w), 0.5 * height + scale * (cy - 0.5 * h)];
  }
  function view() {
    if (fixed) return fixed;
    const camera = following ? path.at(shownTime) : orbit.camera;
    const width = Math.max(1, Math.round(canvas.width * share)), height = Math.max(1, Math.round(canvas.height * share));
    return { width, height, lens: lensFor(width, height), camera };
  }
  function draw() {
    dirty = false;
    const { width, height, lens, camera } = view();
    const tint = showPath && !following && !fixed ? [0.1, 0.55, 1, 1] : null;
    drawing.draw({ width, height, lens, camera_from_world: matrixOf(camera), eye: camera.eye }, header.background, tint);
  }

  // --- The engine, in a worker where the browser allows one --------------------------------------------------------------
  let worker = null, engine = null;
  function take(answer) {
    if (answer.place) {
      drawing.place(answer.place, true);
      drawing.shape(answer.shape, true);
      if (answer.harmonics) drawing.harmonics(answer.harmonics, header.terms);
      return;
    }
    busy = false;
    if (answer.movingPlace) drawing.place(answer.movingPlace, false);
    if (answer.movingShape) drawing.shape(answer.movingShape, false);
    drawing.order(answer.order);
    ({ near, middle, time: shownTime, number: answered } = answer);
    dirty = true;
    for (const resolve of waiting.filter((item) => item.number <= answered)) resolve.done();
    waiting = waiting.filter((item) => item.number > answered);
  }
  function startEngine() {
    try {
      const source = `${createEngine}\n(${serveEngine})();`;
      worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
      worker.onmessage = ({ data }) => take(data);
      worker.onerror = (event) => { event.preventDefault(); startHere(); };
      worker.postMessage({ header, buffer: bytes.buffer });
    } catch {
      startHere();
    }
  }
  function startHere() {
    if (worker) worker.terminate();
    worker = null;
    engine = createEngine(header, bytes.buffer);
    take(engine.all());
    busy = false;
    asked = "";
  }
  function ask() {
    if (busy) return;
    const { z, eye } = (fixed && fixed.camera) || (following ? path.at(time) : orbit.camera);
    const axis = [...z, -vec.dot(z, eye)];
    const question = `${time} ${axis}`;
    if (question === asked) return;
    asked = question;
    busy = true;
    const message = { time, axis, number: ++number };
    if (worker) worker.postMessage(message);
    else if (engine) take(engine.answer(message));
  }

  // --- Time --------------------------------------------------------------------------------------------------------------
  function setPlaying(value) {
    playing = value && timed;
    playButton.setAttribute("aria-pressed", String(playing));
    playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
  }
  function seek(value) {
    time = Math.min(Math.max(value, first), last);
    tellTime();
  }
  function tellTime() {
    slider.value = time;
    slider.setAttribute("aria-valuetext", `${time.toFixed(2)} seconds`);
    $("clock").textContent = `${time.toFixed(2)} / ${last.toFixed(2)} s`;
  }
  const step = path && path.times.length > 1 ? (path.times[path.times.length - 1] - path.times[0]) / (path.times.length - 1) : 1 / 30;

  // --- View --------------------------------------------------------------------------------------------------------------
  function release() { // from the recorded camera, where it stands
    fixed = null;
    if (!following) return;
    orbit.set(path.at(shownTime), header.pivot);
    setFollowing(false);
  }
  function setFollowing(value) {
    following = Boolean(value && path);
    fixed = null;
    followButton.setAttribute("aria-pressed", String(following));
    dirty = true;
  }
  function setPath(value) {
    showPath = Boolean(value && path);
    pathButton.setAttribute("aria-pressed", String(showPath));
    dirty = true;
  }
  function reset() {
    orbit.set(cameraFromPose(header.pose), header.pivot);
    setFollowing(false);
  }
  const act = (change) => { release(); change(); dirty = true; };
  const nearest = () => 0.1 * header.pivot;

  // --- Mouse and touch ---------------------------------------------------------------------------------------------------
  const pointers = new Map();
  const spot = () => {
    const all = [...pointers.values()];
    const centre = all.reduce((sum, p) => [sum[0] + p[0] / all.length, sum[1] + p[1] / all.length], [0, 0]);
    return { centre, apart: all.length > 1 ? Math.hypot(all[0][0] - all[1][0], all[0][1] - all[1][1]) : 0 };
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    frame.classList.add("grabbing");
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const before = spot();
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const after = spot();
    const dx = after.centre[0] - before.centre[0], dy = after.centre[1] - before.centre[1], tall = canvas.clientHeight || 1;
    act(() => {
      if (pointers.size > 1) {
        if (before.apart > 10) orbit.zoom(after.apart / before.apart, nearest());
        pan(dx, dy);
      } else if (event.shiftKey || event.buttons & 6) pan(dx, dy);
      else orbit.turn(3 * dx / tall, -3 * dy / tall, event.ctrlKey || event.metaKey);
    });
  });
  function pan(dx, dy) {
    const fx = lensFor(canvas.clientWidth || 1, canvas.clientHeight || 1)[0];
    orbit.move(-dx / fx, -dy / fx, 0); // the pivot stays under the finger
  }
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => {
      pointers.delete(event.pointerId);
      if (!pointers.size) frame.classList.remove("grabbing");
    });
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    if (!assets.whole && root.activeElement === null) return; // inside a page the wheel scrolls until the player is used
    event.preventDefault();
    act(() => orbit.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), nearest()));
  }, { passive: false });

  // --- Keys --------------------------------------------------------------------------------------------------------------
  const held = new Set();
  const moves = {
    arrowleft: [-1, 0, 0, 0, 0], arrowright: [1, 0, 0, 0, 0], arrowup: [0, -1, 0, 0, 0], arrowdown: [0, 1, 0, 0, 0],
    a: [0, 0, -1, 0, 0], d: [0, 0, 1, 0, 0], e: [0, 0, 0, -1, 0], q: [0, 0, 0, 1, 0], w: [0, 0, 0, 0, 1], s: [0, 0, 0, 0, -1],
  };
  const commands = {
    " ": () => setPlaying(!playing),
    ",": () => { setPlaying(false); seek(time - step); },
    ".": () => { setPlaying(false); seek(time + step); },
    home: () => { setPlaying(false); seek(first); },
    end: () => { setPlaying(false); seek(last); },
    "+": () => act(() => orbit.zoom(1.15, nearest())),
    "=": () => act(() => orbit.zoom(1.15, nearest())),
    "-": () => act(() => orbit.zoom(1 / 1.15, nearest())),
    r: reset,
    c: () => setFollowing(!following),
    p: () => setPath(!showPath),
    "?": () => $("help").toggleAttribute("open"),
    escape: () => $("help").removeAttribute("open"),
  };
  frame.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const control = event.target.closest("button, input, select, summary"); // those have keys of their own
    if (control && (key === " " || key === "enter" || key.startsWith("arrow") || ((control === slider || control.tagName === "SELECT") && (key === "home" || key === "end")))) {
      event.stopPropagation();
      return;
    }
    if (moves[key]) held.add(key);
    else if (commands[key]) commands[key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  frame.addEventListener("keyup", (event) => held.delete(event.key.toLowerCase()));
  frame.addEventListener("focusout", () => held.clear());
  function walk(seconds) {
    const sum = [0, 0, 0, 0, 0];
    for (const key of held) moves[key].forEach((value, k) => { sum[k] += value; });
    if (!sum.some(Boolean)) return;
    act(() => {
      orbit.turn(sum[0] * seconds, sum[1] * seconds * 0.7);
      orbit.move(0.5 * seconds * sum[2], 0.5 * seconds * sum[3], 0.5 * seconds * sum[4]);
    });
  }

  // --- The bar -----------------------------------------------------------------------------------------------------------
  slider.min = first;
  slider.max = last;
  slider.step = Math.max((last - first) / 2000, 1e-4);
  for (const part of ["play", "time", "clock", "speed"]) $(part).hidden = !timed;
  for (const part of ["follow", "path"]) $(part).hidden = !path;
  playButton.addEventListener("click", () => setPlaying(!playing));
  slider.addEventListener("input", () => { setPlaying(false); seek(+slider.value); });
  $("speed").addEventListener("change", (event) => { speed = +event.target.value; });
  $("reset").addEventListener("click", reset);
  followButton.addEventListener("click", () => setFollowing(!following));
  pathButton.addEventListener("click", () => setPath(!showPath));

  // --- Every frame of the screen -----------------------------------------------------------------------------------------
  function fit() {
    if (fixed) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width === width && canvas.height === height) return;
    canvas.width = width;
    canvas.height = height;
    dirty = true;
  }
  let stamp = null, pace = 0, drawnFrames = 0, pausedFor = 0, wasLively = false;
  function tick(now) {
    const seconds = stamp === null ? 0 : (now - stamp) / 1000;
    stamp = now;
    if (playing) {
      time += Math.min(seconds, 0.2) * speed;
      if (time > last) time = first + (time - last) % (last - first);
      tellTime();
    }
    walk(Math.min(seconds, 0.1));
    fit();
    ask();
    const lively = dirty;
    if (!lively && share < 1 && !busy && (pausedFor += seconds) > 0.25) { share = 1; dirty = true; } // stands still: the whole picture
    if (dirty) draw();
    if (lively) {
      pausedFor = 0;
      drawnFrames++;
      if (wasLively && seconds > 0) pace = pace ? 0.9 * pace + 0.1 * seconds : seconds;
      // Software drawing is slow by the pixel: fewer of them while the picture moves.
      const wanted = drawnFrames > 4 && pace > 0.08 ? Math.max(0.8 * share, 0.3) : drawnFrames > 40 && pace < 0.025 ? Math.min(share / 0.8, 1) : share;
      if (wanted !== share) { share = wanted; pace = 0; drawnFrames = 0; }
    }
    if (lively !== wasLively || drawnFrames % 10 === 0) {
      const rate = !lively ? "standing still" : !pace ? "…" : `${Math.round(1 / pace)} fps${share < 1 ? ` at ${Math.round(100 * share)} % of the width` : ""}`;
      $("stats").textContent = `${header.count.toLocaleString("en")} Gaussians · ${rate}`;
    }
    wasLively = lively;
    requestAnimationFrame(tick);
  }
  canvas.addEventListener("webglcontextlost", () => giveUp("The graphics driver took the picture away; reload the page to see it again."));

  // --- Start -------------------------------------------------------------------------------------------------------------
  orbit.set(cameraFromPose(header.pose), header.pivot);
  if (path) drawing.lines(path.lines([cameras.intrinsics[0], cameras.intrinsics[4], cameras.intrinsics[2], cameras.intrinsics[5]], 0.1 * header.pivot));
  const moment = assets.whole && /[#&]t=([\d.]+)/.exec(location.hash); // a link to a moment opens there and stands still
  if (moment) time = Math.min(Math.max(+moment[1], first), last);
  tellTime();
  setPlaying(!moment && header.motion !== "still" && !matchMedia("(prefers-reduced-motion: reduce)").matches);
  startEngine();
  const api = {
    facts: { count: header.count, start: header.start, end: header.end, model: header.model, motion: header.motion, note: header.note },
    // Draw a time and, where given, a camera: `world_from_camera` (4 rows of 4) and `intrinsics` (3 rows of 3) for a picture of
    // `width` by `height` pixels. Resolves when it is on the canvas; moving the view by hand ends it.
    async show({ time: when, world_from_camera, intrinsics, width, height }) {
      setPlaying(false);
      if (when !== undefined) seek(when);
      if (world_from_camera) {
        const [k, pose] = [intrinsics.flat(), world_from_camera.flat()];
        fixed = { width, height, lens: [k[0], k[4], k[2], k[5]], camera: cameraFromPose(pose) };
        Object.assign(canvas, { width, height });
      }
      while (busy) await new Promise((done) => waiting.push({ number, done }));
      asked = "";
      ask();
      while (busy) await new Promise((done) => waiting.push({ number, done }));
      draw();
      drawing.finish();
    },
    // The picture as it is now, as the address of a PNG.
    picture() { draw(); return canvas.toDataURL("image/png"); },
    seek(value) { setPlaying(false); seek(value); },
    focus: () => canvas.focus(),
    play: () => setPlaying(true), pause: () => setPlaying(false), reset,
    follow: setFollowing, showPath: setPath,
    get time() { return time; }, get shownTime() { return shownTime; }, get playing() { return playing; },
    get following() { return following; }, get camera() { return view().camera; }, get distance() { return orbit.distance; }, get inWorker() { return worker !== null; },
    ready: new Promise((done) => waiting.push({ number: 1, done: () => done(true) })),
  };
  requestAnimationFrame(tick);
  return api;
}
